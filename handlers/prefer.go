package handlers

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	// mostWait is the longest that Prefer: wait is followed.
	mostWait = 30 * time.Second
	// firstPoll and lastPoll bound the time between two looks, which doubles.
	firstPoll = 20 * time.Millisecond
	lastPoll  = 250 * time.Millisecond
)

var waitForm = regexp.MustCompile(`^(?i:wait)\s*=\s*(?:"([0-9]+)"|([0-9]+))\s*(?:;.*)?$`)

// preferredWait reads Prefer: wait=N (RFC 7240), clamped to 30. A preference that is malformed is one that is not there;
// of several the first counts.
func preferredWait(header http.Header) (wait time.Duration, asked bool) {
	for _, preference := range strings.Split(strings.Join(header.Values("Prefer"), ","), ",") {
		match := waitForm.FindStringSubmatch(strings.TrimSpace(preference))
		if match == nil {
			continue
		}
		seconds, err := strconv.Atoi(match[1] + match[2])
		if err != nil || seconds > int(mostWait/time.Second) {
			return mostWait, true // more digits than a number has
		}
		return time.Duration(seconds) * time.Second, true
	}
	return 0, false
}

// await loads something until it is settled, the wait that the client prefers is over, the client is gone or the server
// stops; it returns what it loaded last. It asks the source of truth again and again, and holds no connection between.
func await[T any](c echo.Context, load func() (T, error), settled func(T) bool) (T, error) {
	wait, asked := preferredWait(c.Request().Header)
	end := time.Now().Add(wait)
	value, err := load()
	if err != nil || !asked {
		return value, err
	}
	ctx := c.Request().Context()
	for pause := firstPoll; !settled(value); pause = min(2*pause, lastPoll) {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-stopping(ctx):
			end = time.Time{} // a last look, and the answer
		case <-ctx.Done():
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return value, err
		}
		if value, err = load(); err != nil {
			return value, err
		}
	}
	c.Response().Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	return value, nil
}
