package pages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type letterView struct {
	*outbox.Letter
	// Path is that of the letter's page.
	Path    string
	Edited  string // what stands in the form as the event's data
	Replay  formState
	Dismiss formState
	Redact  redactState
	// Newer are the events that a replay has to be forced past, and Strange says that the data is nothing that the consumer's code takes.
	Newer   []outbox.NewerEvent
	Strange bool
	// Unknown says that a dismissal has to be forced, for what may have been done outside.
	Unknown bool
	// Rehearsal is what the replay would do, where that was asked for.
	Rehearsal *outbox.Rehearsal
}

// formState is what was typed into a form that was refused, and why.
type formState struct {
	Reason string
	Error  string
	Open   bool // the part of the form that is folded away has what is wrong
}

// redactState is what was typed into the form of a redaction.
type redactState struct {
	formState
	Pointers        string // one a line
	Errors, Reasons bool
}

func letterPath(id int64) string { return fmt.Sprintf("%s/letters/%d", Root, id) }

func (p *Pages) letterView(c echo.Context) (letterView, error) {
	id, err := pathNumber(c)
	if err != nil {
		return letterView{}, err
	}
	l, err := p.operator.Letter(c.Request().Context(), id)
	if err != nil {
		return letterView{}, err
	}
	return letterView{Letter: l, Path: letterPath(id), Edited: pretty(l.Data)}, nil
}

func (v letterView) title() string { return fmt.Sprintf("Dead letter %d", v.ID) }

// Last is the newest attempt that failed, and Earlier are those before it, the newest first.
func (v letterView) Last() outbox.AttemptError { return v.Errors[len(v.Errors)-1] }

func (v letterView) Earlier() []outbox.AttemptError {
	earlier := slices.Clone(v.Errors[:len(v.Errors)-1])
	slices.Reverse(earlier)
	return earlier
}

// EditDiff is what the edit changed of the event.
func (v letterView) EditDiff() (diff []outbox.DataChange) {
	if err := json.Unmarshal(v.Edit.Diff, &diff); err != nil {
		return nil // of an edit from before there were any
	}
	return diff
}

func (p *Pages) letter(c echo.Context) error {
	v, err := p.letterView(c)
	if err != nil {
		return err
	}
	return p.render(c, http.StatusOK, "letter", v.title(), v)
}

// replay sends the event again, with what stands in the form where that is not the letter's data.
func (p *Pages) replay(c echo.Context) error {
	v, err := p.letterForm(c)
	if err != nil {
		return err
	}
	by, data, ok := v.replayForm(c)
	if !ok {
		return p.render(c, http.StatusUnprocessableEntity, "letter", v.title(), v)
	}
	if _, err := p.operator.Replay(c.Request().Context(), v.ID, data, by); err != nil {
		return p.refuseLetter(c, &v, &v.Replay, err)
	}
	if data != nil {
		return after(c, v.Path, "edited")
	}
	return after(c, v.Path, "replayed")
}

// rehearse shows what the replay would do that stands in the form.
func (p *Pages) rehearse(c echo.Context) error {
	v, err := p.letterForm(c)
	if err != nil {
		return err
	}
	by, data, ok := v.replayForm(c)
	if !ok {
		return p.render(c, http.StatusUnprocessableEntity, "letter", v.title(), v)
	}
	if v.Rehearsal, err = p.operator.Rehearse(c.Request().Context(), v.ID, data, by); err != nil {
		return p.refuseLetter(c, &v, &v.Replay, err)
	}
	v.Strange = len(v.Rehearsal.Problems) > 0
	return p.render(c, http.StatusOK, "letter", v.title(), v)
}

// replayForm reads the form of a replay, and reports whether that can be what somebody wants; data is nil where it is the event's own.
func (v *letterView) replayForm(c echo.Context) (by outbox.Action, data json.RawMessage, ok bool) {
	by, v.Replay.Error = action(c)
	v.Replay.Reason = by.Reason
	if c.Request().Form.Has("data") {
		v.Edited = c.FormValue("data")
	}
	data, valid := changed(v.Data, v.Edited)
	v.Replay.Open = data != nil || !valid
	if v.Replay.Error == "" && !valid {
		v.Replay.Error = "The data cannot be read as JSON."
	}
	return by, data, v.Replay.Error == ""
}

// changed is the data of a form where it is not what the letter has, however that is laid out.
func changed(was json.RawMessage, typed string) (data json.RawMessage, valid bool) {
	var a, b bytes.Buffer
	if err := json.Compact(&b, []byte(typed)); err != nil {
		return nil, false
	}
	if err := json.Compact(&a, was); err == nil && bytes.Equal(a.Bytes(), b.Bytes()) {
		return nil, true
	}
	return b.Bytes(), true
}

func (p *Pages) dismiss(c echo.Context) error {
	v, err := p.letterForm(c)
	if err != nil {
		return err
	}
	by, problem := action(c)
	v.Dismiss.Reason = by.Reason
	if problem != "" {
		v.Dismiss.Error = problem
		return p.render(c, http.StatusUnprocessableEntity, "letter", v.title(), v)
	}
	if _, err := p.operator.Dismiss(c.Request().Context(), v.ID, by); err != nil {
		return p.refuseLetter(c, &v, &v.Dismiss, err)
	}
	return after(c, v.Path, "dismissed")
}

// redact takes out what stands in the form.
func (p *Pages) redact(c echo.Context) error {
	v, err := p.letterForm(c)
	if err != nil {
		return err
	}
	by, problem := action(c)
	v.Redact = redactState{
		formState{Reason: by.Reason, Error: problem, Open: true},
		c.FormValue("pointers"), c.FormValue("errors") != "", c.FormValue("reasons") != "",
	}
	if problem != "" {
		return p.render(c, http.StatusUnprocessableEntity, "letter", v.title(), v)
	}
	r := outbox.Redaction{Errors: v.Redact.Errors, Reasons: v.Redact.Reasons}
	for line := range strings.Lines(v.Redact.Pointers) {
		if line = strings.TrimSpace(line); line != "" {
			r.Pointers = append(r.Pointers, line)
		}
	}
	if _, err := p.operator.Redact(c.Request().Context(), v.ID, r, by); err != nil {
		return p.refuseLetter(c, &v, &v.Redact.formState, err)
	}
	return after(c, v.Path, "redacted")
}

func (p *Pages) letterForm(c echo.Context) (letterView, error) {
	if err := c.Request().ParseForm(); err != nil {
		return letterView{}, formError{err}
	}
	return p.letterView(c)
}

// refuseLetter shows the letter again, with what was typed and why it was not done.
func (p *Pages) refuseLetter(c echo.Context, v *letterView, form *formState, err error) error {
	status, why, newer, ok := refusal(err)
	if !ok {
		return err
	}
	form.Error, v.Newer, v.Strange = why, newer, errors.As(err, new(*outbox.InvalidDataError))
	var conflict *outbox.ConflictError
	v.Unknown = errors.As(err, &conflict) && conflict.OutcomeUnknown
	if status == http.StatusConflict {
		// The state is another than the form was made for.
		if v.Letter, err = p.operator.Letter(c.Request().Context(), v.ID); err != nil {
			return err
		}
	}
	return p.render(c, status, "letter", v.title(), *v)
}

// formError is a form that could not be read.
type formError struct{ err error }

func (e formError) Error() string { return "read a form: " + e.err.Error() }
func (e formError) Unwrap() error { return e.err }
