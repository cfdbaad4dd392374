package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// The exit codes of all commands. The README has them.
const (
	exitFailed = 1 // it failed, there is no such thing, or what was asked for is not as it should be
	exitUsage  = 2 // the command line cannot be, or a command that answers by its exit code could not find out
)

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// usage is what is wrong with the command line.
func usage(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitUsage}
}

// unclear is the error of a command that answers by its exit code and could not find out. That there is no such thing is an answer.
func unclear(err error) error {
	var exit exitError
	if err == nil || errors.Is(err, outbox.ErrNotFound) || errors.As(err, &exit) {
		return err
	}
	return exitError{err, exitUsage}
}

// complain prints an error, a line of its text each.
func complain(w io.Writer, err error) {
	for i, line := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			line = "outbox: " + strings.TrimPrefix(line, "outbox: ") // the library says so, too
		}
		_, _ = fmt.Fprintln(w, printable(line)) // there is nobody else to tell
	}
}

// output is how a command prints its answer, on the standard output.
type output struct {
	JSON bool `name:"json" help:"Print the answer as JSON: the document that the route of the same name answers, where there is one."`
}

// print prints an answer as the document that it is or, for people, by what people does.
func (o output) print(answer any, people func(p *printer)) error {
	if o.JSON {
		return printJSON(os.Stdout, answer)
	}
	p := &printer{w: os.Stdout}
	people(p)
	return p.err
}

// printJSON prints a document on a line. What a terminal would obey is escaped: in JSON it can only stand in a string.
func printJSON(w io.Writer, answer any) error {
	encoded, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	var b strings.Builder
	for _, r := range string(encoded) {
		if obeyed(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	b.WriteByte('\n')
	_, err = io.WriteString(w, b.String())
	return err
}

// printer prints lines for people, and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

// line prints one line, whatever is in it.
func (p *printer) line(format string, args ...any) { p.write(printable(fmt.Sprintf(format, args...))) }

// lines prints text of several lines, each after a margin.
func (p *printer) lines(margin, text string) {
	for line := range strings.Lines(text) {
		p.line("%s%s", margin, strings.TrimRight(line, "\r\n"))
	}
}

func (p *printer) table(t *textTable) {
	for _, line := range t.layout(terminalWidth(p.w)) {
		p.write(line)
	}
}

func (p *printer) write(line string) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, line)
	}
}

// more says that a list goes on.
func (p *printer) more(next *string) {
	if next != nil {
		p.line("… and more: --cursor=%s goes on, and a greater --limit shows more at once", *next)
	}
}

// printable makes a line of text that came from outside fit to be printed: a tab would be a column, a line end a line of somebody else's, and
// an escape sequence the terminal's business.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if obeyed(r) {
			return ' '
		}
		return r
	}, text)
}

// obeyed reports whether a terminal may do something else with a character than show it, as it does with control characters and with those
// that turn the direction of what follows.
func obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// listing is which part of a list is asked for.
type listing struct {
	Limit  int    `default:"50" help:"How many at most. Default: 50."`
	Cursor string `help:"Where to go on: the next_cursor of the part before."`
}

// mostListed is how many items a list is asked for at most.
const mostListed = 1_000_000

func (l listing) check() error {
	if l.Limit < 1 || l.Limit > mostListed {
		return usage("--limit must be 1 to %d, and is %d", mostListed, l.Limit)
	}
	return nil
}

// before is the id that the items of a list by id are to be below; 0: it begins with the newest.
func (l listing) before() (id int64, err error) {
	if err := l.check(); err != nil || l.Cursor == "" {
		return 0, err
	}
	if _, err := fmt.Sscanf(l.Cursor, "%d", &id); err != nil || id < 1 || fmt.Sprint(id) != l.Cursor {
		return 0, usage("--cursor must be a next_cursor that a part of this list gave, and is %q", l.Cursor)
	}
	return id, nil
}

// whole is a list that has no parts.
func whole[T any](items []T) handlers.List[T] {
	if items == nil {
		items = []T{}
	}
	return handlers.List[T]{Items: items}
}
