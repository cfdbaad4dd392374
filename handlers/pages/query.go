package pages

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

// filter reads what a list is narrowed by from a page's query; the first that cannot be is refused by name. What is unknown is
// ignored: a page that is sent to a colleague shall open.
type filter struct {
	value  func(name string) string // of the query, or of a form
	refuse *Failure
}

func (f *filter) no(name, detail string) {
	if f.refuse == nil {
		f.refuse = &Failure{http.StatusUnprocessableEntity, "That cannot be looked for", name + " " + detail + "."}
	}
}

func (f *filter) text(name string) string {
	v := strings.TrimSpace(f.value(name))
	if !plain(v, 255) {
		f.no(name, "must be at most 255 bytes of UTF-8 without NUL")
		return ""
	}
	return v
}

func (f *filter) oneOf(name string, allowed ...string) string {
	v := f.text(name)
	if v != "" && !slices.Contains(allowed, v) {
		f.no(name, "must be one of "+strings.Join(allowed, ", "))
	}
	return v
}

func (f *filter) time(name string) time.Time {
	v := f.text(name)
	if v == "" {
		return time.Time{}
	}
	t, err := parseTime(v)
	if err != nil {
		f.no(name, timeForm)
	}
	return t
}

// cursor is the id that a page of a list begins below; 0: with the newest.
func (f *filter) cursor() int64 {
	v := f.text("cursor")
	if v == "" {
		return 0
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 {
		f.no("cursor", "must be one that a page of this list gave")
	}
	return n
}

// older is the link to the next page of a list.
func older(list url.URL, last int64) string {
	q := list.Query()
	q.Set("cursor", strconv.FormatInt(last, 10))
	list.RawQuery = q.Encode()
	return list.RequestURI()
}

const timeForm = "must be a time in UTC like 2026-01-31 12:00, or 2026-01-31T12:00:00Z"

// parseTime takes what people type: RFC 3339, or a part of it, which is in UTC.
func parseTime(v string) (t time.Time, err error) {
	for _, form := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if t, err = time.Parse(form, v); err == nil {
			return t, nil
		}
	}
	return t, err
}

// start reads where in the log something begins: a time, the word beginning, or nothing, which is the present end.
func start(from string) (outbox.Start, bool) {
	from = strings.TrimSpace(from)
	if s, ok := outbox.ParseStart(from); ok {
		return s, true
	}
	t, err := parseTime(from)
	return outbox.Since(t), err == nil && !t.IsZero()
}

// plain reports whether the database takes s as a text.
func plain(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// number is the number in the path; what cannot be one is not found.
func pathNumber(c echo.Context) (int64, error) {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, outbox.ErrNotFound
	}
	return id, nil
}

// action is who does what a form asks for, and why.
func action(c echo.Context) (by outbox.Action, problem string) {
	by = outbox.Action{Actor: actor(c), Reason: strings.TrimSpace(c.FormValue("reason")), Force: c.FormValue("force") != ""}
	if n := utf8.RuneCountInString(by.Reason); n > 1000 || !plain(by.Reason, 4000) {
		problem = "The reason must have at most 1000 characters, without NUL."
	}
	return by, problem
}

// refusal is why an action was not done, if that is for its form to say, with the status of the answer.
func refusal(err error) (status int, why string, newer []outbox.NewerEvent, ok bool) {
	var conflict *outbox.ConflictError
	var refused *outbox.InvalidEventError
	var data *outbox.InvalidDataError
	var redaction *outbox.InvalidRedactionError
	var webhook *webhooks.InvalidError
	switch {
	case errors.As(err, &data):
		return http.StatusUnprocessableEntity, "The consumer's code does not take this data: " + problems(data.Fields) + ".", nil, true
	case errors.As(err, &redaction):
		return http.StatusUnprocessableEntity, "That cannot be redacted: " + redactionProblems(redaction.Fields) + ".", nil, true
	case errors.As(err, &webhook):
		return http.StatusUnprocessableEntity, "The field " + webhook.Field + " " + webhook.Reason + ".", nil, true
	case errors.Is(err, outbox.ErrReasonRequired):
		return http.StatusUnprocessableEntity, "A reason is required: somebody will ask for it later.", nil, true
	case errors.As(err, &conflict):
		return http.StatusConflict, "Not done, since it does not fit the present state: " + conflict.Reason + ".", conflict.Newer, true
	case errors.As(err, &refused):
		return http.StatusUnprocessableEntity, "The " + refused.Field + " is refused: it " + refused.Reason + ".", nil, true
	}
	return 0, "", nil, false
}

func problems(all []outbox.DataProblem) string {
	said := make([]string, len(all))
	for i, p := range all {
		said[i] = cmp.Or(p.Pointer, "the whole") + " " + p.Detail
	}
	return strings.Join(said, "; ")
}

// redactionProblems names pointers by their number in the form, of which no line needs to be one.
func redactionProblems(all []outbox.DataProblem) string {
	said := make([]string, len(all))
	for i, p := range all {
		name := strings.TrimPrefix(p.Pointer, "/")
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "pointers/")); err == nil {
			name = "pointer " + strconv.Itoa(n+1)
		}
		said[i] = cmp.Or(name, "the form") + " " + p.Detail
	}
	return strings.Join(said, "; ")
}
