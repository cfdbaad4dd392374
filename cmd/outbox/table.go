package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

const (
	columnGap = 2
	// leastColumn is how narrow a column gets on a narrow terminal. Where that does not help, lines are cut at its edge.
	leastColumn = 8
)

// textTable is a table for people. It fits the terminal that it is printed on: what is too wide in its widest columns ends in an ellipsis.
type textTable struct {
	rows [][]string
}

func table(columns ...string) *textTable { return &textTable{rows: [][]string{columns}} }

func (t *textTable) row(cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = printable(fmt.Sprint(c))
	}
	t.rows = append(t.rows, text)
}

// layout returns the table's lines, for a terminal of that width; 0: for what is none, and takes all of it.
func (t *textTable) layout(terminal int) []string {
	columns := t.columns(terminal)
	lines := make([]string, len(t.rows))
	for i, row := range t.rows {
		var b strings.Builder
		for n, cell := range row {
			cell = cut(cell, columns[n])
			b.WriteString(cell)
			if n < len(row)-1 {
				b.WriteString(strings.Repeat(" ", columns[n]-textWidth(cell)+columnGap))
			}
		}
		if lines[i] = strings.TrimRight(b.String(), " "); terminal > 0 {
			lines[i] = cut(lines[i], terminal)
		}
	}
	return lines
}

// columns returns how wide each column is. Where they do not fit, the widest give way first.
func (t *textTable) columns(terminal int) []int {
	widths, total := make([]int, len(t.rows[0])), 0
	for _, row := range t.rows {
		for n, cell := range row {
			widths[n] = max(widths[n], textWidth(cell))
		}
	}
	for n := range widths {
		if terminal > 0 {
			widths[n] = min(widths[n], terminal)
		}
		total += widths[n]
	}
	total += columnGap * (len(widths) - 1)
	for ; terminal > 0 && total > terminal; total-- {
		widest := 0
		for n := range widths {
			if widths[n] >= widths[widest] { // of several the last: names come first
				widest = n
			}
		}
		if widths[widest] <= leastColumn {
			break
		}
		widths[widest]--
	}
	return widths
}

// terminalWidth is 0 for what is no terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// cut shortens text that is wider than most, with an ellipsis at its end.
func cut(text string, most int) string {
	if textWidth(text) <= most {
		return text
	}
	taken := 0
	for i, r := range text {
		if taken += runeWidth(r); taken > most-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// textWidth is how many columns of a terminal text takes.
func textWidth(text string) (columns int) {
	for _, r := range text {
		columns += runeWidth(r)
	}
	return columns
}

func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
