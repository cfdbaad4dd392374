package build

import (
	"bytes"
	"errors"
	"fmt"
)

// errClock says that the toolchain's package time is not the one that shift knows how to change.
var errClock = errors.New("package time has changed: the edit that shifts its clock has to be made anew")

// edits of time.go. Now is the one place where it reads the wall clock, and it reads it together with the monotonic one,
// which is left alone. (zoneinfo_read.go does so to choose a zone's abbreviation, and sleep.go reads the monotonic clock.)
var edits = []struct{ old, new string }{
	{
		"import (\n\t\"errors\"\n\t\"math/bits\"\n",
		"import (\n\t\"errors\"\n\t\"math/bits\"\n\t\"syscall\"\n",
	},
	{
		"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n",
		"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += faultsClock\n\tif mono == 0 {\n",
	},
}

// clock reads the variable when the program starts, before any other package than syscall and what it stands on.
const clock = `
var faultsClock = func() int64 {
	text, ok := syscall.Getenv("` + EnvClock + `")
	if !ok || text == "" {
		return 0
	}
	seconds, err := atoi(text)
	if err != nil {
		panic("` + EnvClock + ` is not a number of seconds: " + text)
	}
	return int64(seconds)
}()
`

// shift changes the source of time.go, and refuses when it does not find exactly what it expects.
func shift(source []byte) ([]byte, error) {
	// A second reader of the clock would stay right where the first is wrong.
	for text, want := range map[string]int{"runtimeNow()": 2, "= now()": 0} {
		if n := bytes.Count(source, []byte(text)); n != want {
			return nil, fmt.Errorf("%w: %q is there %d times, not %d", errClock, text, n, want)
		}
	}
	for _, e := range edits {
		if n := bytes.Count(source, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("%w: %q is there %d times", errClock, e.old, n)
		}
		source = bytes.Replace(source, []byte(e.old), []byte(e.new), 1)
	}
	return append(source, clock...), nil
}
