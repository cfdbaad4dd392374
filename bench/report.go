package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"
)

// result is a figure over all rounds; the fields of the JSON file.
type result struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	Median float64   `json:"median"`
	Runs   []float64 `json:"runs"`
}

type results struct {
	server string // what it was measured on
	list   []*result
}

func newResults(ctx context.Context, s *server) *results {
	r := &results{server: "a PostgreSQL of unknown version"}
	if conn, err := pgx.Connect(ctx, s.url); err == nil {
		r.server = "PostgreSQL " + conn.PgConn().ParameterStatus("server_version")
		_ = conn.Close(ctx) // it has said all it was asked
	}
	return r
}

func (r *results) add(m measurement, values []float64) {
	for i, f := range m.gives {
		found := r.find(f.name)
		if found == nil {
			found = &result{Name: f.name, Unit: f.unit}
			r.list = append(r.list, found)
		}
		found.Runs = append(found.Runs, values[i])
		found.Median = median(found.Runs)
	}
}

func (r *results) find(name string) *result {
	i := slices.IndexFunc(r.list, func(x *result) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return r.list[i]
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// print writes the table: a line for each figure, and one more for each further target it has.
func (r *results) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) }
	line("name", "median", "unit", "runs", "ratio", "to", "at least", "aim", "")
	for _, x := range r.list {
		runs := make([]string, len(x.Runs))
		for i, v := range x.Runs {
			runs[i] = number(v)
		}
		first := []string{x.Name, number(x.Median), x.Unit, strings.Join(runs, " ")}
		for _, goal := range targets {
			if goal.name == x.Name {
				line(append(first, r.compare(x, goal)...)...)
				first = []string{"", "", "", ""}
			}
		}
		if first[0] != "" {
			line(first...)
		}
	}
	_ = t.Flush() // a terminal that takes no more will not take the complaint either
}

// compare fills the columns ratio, to, at least, aim and verdict. Where less is better the bounds are upper ones.
func (r *results) compare(x *result, goal target) []string {
	sign := "≥"
	if goal.lower {
		sign = "≤"
	}
	value, ratio := x.Median, ""
	verdict := ""
	if goal.against != "" {
		reference := r.find(goal.against)
		if reference == nil || reference.Median == 0 {
			return []string{"", goal.against, sign + number(goal.least), sign + number(goal.aim), "not run"}
		}
		value = x.Median / reference.Median
		ratio = strconv.FormatFloat(value, 'f', 2, 64)
	}
	verdict = goal.verdict(value)
	return []string{ratio, goal.against, sign + number(goal.least), sign + number(goal.aim), verdict}
}

// number prints as many digits as a measured figure has.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

func (r *results) write(path string) error {
	list := r.list
	if list == nil {
		list = []*result{}
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
