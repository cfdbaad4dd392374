package handlers

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// query reads query parameters strictly: one that is unknown, repeated or malformed is refused by name.
type query struct {
	values     url.Values
	unreadable bool // what cannot be read may have been a parameter
	errs       []fieldError
}

func newQuery(c echo.Context, known ...string) *query {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	q := &query{values: values, unreadable: err != nil}
	for name, values := range q.values {
		if !slices.Contains(known, name) {
			q.refuse(shorten(name), "is not a parameter of this route")
		} else if len(values) > 1 {
			q.refuse(name, "is given more than once")
		}
	}
	return q
}

func (q *query) refuse(name, detail string) {
	q.errs = append(q.errs, fieldError{Pointer: "?" + name, Detail: detail})
}

func (q *query) text(name string) string {
	v := q.values.Get(name)
	if len(v) > 255 || strings.ContainsRune(v, 0) || strings.ToValidUTF8(v, "") != v {
		q.refuse(name, "must be at most 255 bytes of UTF-8 without NUL")
		return ""
	}
	return v
}

func (q *query) oneOf(name string, allowed ...string) string {
	v := q.values.Get(name)
	if v != "" && !slices.Contains(allowed, v) {
		q.refuse(name, "must be one of "+strings.Join(allowed, ", "))
	}
	return v
}

func (q *query) time(name string) time.Time {
	v := q.values.Get(name)
	if v == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		q.refuse(name, "must be a time like 2026-01-31T12:00:00Z")
	}
	return t
}

func (q *query) number(name string, otherwise, least, most int64) int64 {
	if !q.values.Has(name) {
		return otherwise
	}
	n, err := strconv.ParseInt(q.values.Get(name), 10, 64)
	if err != nil || n < least || n > most {
		q.refuse(name, "must be a whole number from "+strconv.FormatInt(least, 10)+" to "+strconv.FormatInt(most, 10))
	}
	return n
}

func (q *query) problem() error {
	if q.unreadable {
		return malformed("the query cannot be read: a percent sign comes before two hexadecimal digits, and & stands between parameters",
			fieldError{"?", "cannot be read"})
	}
	if len(q.errs) == 0 {
		return nil
	}
	slices.SortFunc(q.errs, func(a, b fieldError) int { return strings.Compare(a.Pointer, b.Pointer) })
	return validation(q.errs[:min(len(q.errs), maxErrors)])
}
