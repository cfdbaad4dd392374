package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

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
		// What came from outside may hold anything: a tab would be a column, and an escape sequence the terminal's business.
		text[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, fmt.Sprint(c))
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

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
