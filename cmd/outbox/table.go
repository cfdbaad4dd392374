package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"

	"golang.org/x/term"
)

// textTable is a table for people. On a terminal, lines that are wider than it are cut at its edge.
type textTable struct {
	lines []string
}

func table(columns ...string) *textTable {
	t := &textTable{}
	t.lines = append(t.lines, strings.Join(columns, "\t"))
	return t
}

func (t *textTable) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = printable(fmt.Sprint(c))
	}
	t.lines = append(t.lines, strings.Join(text, "\t"))
}

func (t *textTable) print(w io.Writer) error {
	var b strings.Builder
	tabs := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, line := range t.lines {
		if _, err := fmt.Fprintln(tabs, line); err != nil {
			return err
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	width := terminalWidth(w)
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		if r := []rune(line); width > 0 && len(r) > width {
			line = string(r[:width-1]) + "…"
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// terminalWidth is 0 for what is no terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// printable makes a line of text that came from outside fit to be printed: a tab would be a column, a line end a line of somebody else's, and
// an escape sequence the terminal's business.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
