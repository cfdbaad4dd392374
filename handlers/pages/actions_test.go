package pages_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// last is the newest line of the audit.
func (o *office) last() string {
	o.t.Helper()
	return value[string](o, `select actor || ': ' || action || ' ' || target || ': ' || reason from audit order by id desc limit 1`)
}

func TestFormsReplay(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	event := o.fill()
	o.signIn()
	path := "/admin/ui/letters/1/replay"

	// Refused, with what was typed kept.
	for _, c := range []struct {
		form  url.Values
		says  string
		kept  string
		state int
	}{
		{url.Values{"data": {`{"secret": "other"}`}}, "A reason is required", "other", 422},
		{url.Values{"data": {`{"secret": `}, "reason": {"a slip"}}, "cannot be read as JSON", `{"secret":`, 422},
		{url.Values{"data": {`{"secret": "a\u0000b"}`}, "reason": {"a slip"}}, "is refused", `a\u0000b`, 422},
		{url.Values{"reason": {string(make([]byte, 5))}}, "The reason must have", "", 422},
	} {
		a := o.post(path, c.form)
		require.Equal(t, c.state, a.status, a.body)
		page := o.page(a)
		require.NotNil(t, find(page, "p", c.says), "%v: %s", c.form, text(page))
		require.Contains(t, text(find(page, "textarea", "")), c.kept)
		if reason := c.form.Get("reason"); reason == "a slip" {
			require.Contains(t, a.body, `value="a slip"`)
		}
	}
	require.Equal(t, "dead", value[string](o, `select state from discarded_jobs`))

	// The letter's own data, however it is laid out, is no edit.
	same := value[string](o, `select jsonb_pretty(data) from discarded_jobs`)
	a := o.post(path, url.Values{"data": {"\r\n" + same}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "/admin/ui/letters/1?done=replayed", a.header.Get("Location"))
	require.Equal(t, "anna: replay dead letter 1: ", o.last())
	require.Zero(t, value[int](o, `select count(*) from event_edits`))
	page := o.page(o.get(a.header.Get("Location")))
	require.NotNil(t, find(page, "p", "was sent again"))
	require.Nil(t, find(page, "button", "Replay"), "it is under way")

	a = o.post(path, url.Values{"reason": {"twice"}})
	require.Equal(t, 409, a.status)
	page = o.page(a)
	require.NotNil(t, find(page, "p", "dead letter 1 is replaying"))
	require.Contains(t, text(page), "being tried", "the page shows the state as it is now")

	o.exec(`update holds set dead_at = now()`)
	o.exec(`update discarded_jobs set state = 'dead'`)
	a = o.post(path, url.Values{"data": {`{"secret": "repaired"}`}, "reason": {"the datum was wrong"}})
	require.Equal(t, "/admin/ui/letters/1?done=edited", a.header.Get("Location"), a.body)
	require.Equal(t, "anna: replay dead letter 1: the datum was wrong", o.last())
	require.JSONEq(t, `{"secret":"repaired"}`, value[string](o, `select data::text from event_edits where event_id = $1`, event))
}

func TestFormsDismiss(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	a := o.post("/admin/ui/letters/1/dismiss", url.Values{"reason": {"  "}})
	require.Equal(t, 422, a.status)
	require.NotNil(t, find(o.page(a), "p", "A reason is required"))
	require.Equal(t, 404, o.post("/admin/ui/letters/2/dismiss", url.Values{"reason": {"x"}}).status)

	a = o.post("/admin/ui/letters/1/dismiss", url.Values{"reason": {"a test"}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "anna: dismiss dead letter 1: a test", o.last())
	require.NotNil(t, find(o.page(o.get(a.header.Get("Location"))), "p", "It was given up for"))
	a = o.post("/admin/ui/letters/1/dismiss", url.Values{"reason": {"again"}})
	require.Equal(t, 409, a.status)
	require.Contains(t, text(o.page(a)), "dead letter 1 is dismissed")
}

// Where nobody knows what was done outside, giving up takes a tick more.
func TestFormsDismissWhatMayHaveHappened(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "billing", func(context.Context, pgx.Tx, outbox.Received[map[string]any]) error { return nil }, outbox.On("user.*"),
		outbox.MayHaveHappened(func(context.Context, pgx.Tx, uuid.UUID) (string, error) { return "order 7 may have been charged", nil }))
	o := newOfficeOf(t, reg)
	o.fill()
	o.signIn()
	require.NotContains(t, o.get("/admin/ui/letters/1").body, `id="dismiss-force"`)
	form := url.Values{"reason": {"a test"}}
	a := o.post("/admin/ui/letters/1/dismiss", form)
	require.Equal(t, 409, a.status)
	require.Contains(t, a.body, `id="dismiss-force"`)
	require.Contains(t, text(o.page(a)), "order 7 may have been charged")
	form.Set("force", "1")
	require.Equal(t, 303, o.post("/admin/ui/letters/1/dismiss", form).status)
	require.Equal(t, "anna: dismiss dead letter 1: a test", o.last())
}

func TestFormsRedact(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	const path = "/admin/ui/letters/1/redact"
	require.NotNil(t, find(o.page(o.get("/admin/ui/letters/1")), "summary", "Redact…"))

	// Refused, with what was typed kept.
	typed := func(change func(url.Values)) url.Values {
		form := url.Values{"pointers": {"\r\n /secret \r\n\r\n/lines/0\r\n"}, "errors": {"1"}, "reason": {"asked by mail"}}
		change(form)
		return form
	}
	for _, c := range []struct {
		form  url.Values
		says  string
		state int
	}{
		{typed(func(f url.Values) { f.Set("reason", " ") }), "A reason is required", 422},
		{typed(func(f url.Values) { f.Set("reason", "\x00") }), "The reason must have", 422},
		{typed(func(url.Values) {}), "pointer 2 leads nowhere", 422},
		{typed(func(f url.Values) { f.Set("pointers", "/lines") }), "pointer 1 leads nowhere", 422},
		{typed(func(f url.Values) { f.Set("pointers", "secret") }), "must be a JSON pointer", 422},
		{typed(func(f url.Values) { f.Set("pointers", " "); f.Del("errors") }), "the form names nothing", 422},
		{typed(func(f url.Values) { f.Set("pointers", "/secret") }), "is dead, and its data is still needed", 409},
	} {
		a := o.post(path, c.form)
		require.Equal(t, c.state, a.status, a.body)
		page := o.page(a)
		require.NotNil(t, find(page, "p", c.says), "%v: %s", c.form, text(page))
		form := find(page, "form", "Places in the data")
		require.Equal(t, strings.Fields(c.form.Get("pointers")), strings.Fields(text(find(form, "textarea", ""))))
		require.Equal(t, c.form.Has("errors"), strings.Contains(a.body, `name="errors" value="1" checked`))
		require.NotContains(t, a.body, `name="reasons" value="1" checked`)
		open := false
		for _, attr := range form.Parent.Attr {
			open = open || attr.Key == "open"
		}
		require.True(t, open, "what is wrong can be seen")
	}

	require.Equal(t, 303, o.post("/admin/ui/letters/1/dismiss", url.Values{"reason": {"a test of bert's"}}).status)
	a := o.post(path, url.Values{"pointers": {"/secret\r\n"}, "errors": {"1"}, "reasons": {"1"}, "reason": {"asked by mail"}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "/admin/ui/letters/1?done=redacted", a.header.Get("Location"))
	require.Equal(t, "anna: redact dead letter 1: asked by mail", o.last())
	page := o.page(o.get(a.header.Get("Location")))
	require.NotNil(t, find(page, "p", "What was named is redacted"))
	require.NotNil(t, find(page, "pre", `"secret": "[redacted]"`))
	require.NotContains(t, text(page), "second line", "of an error")
	page = o.page(o.get("/admin/ui/audit"))
	require.NotContains(t, text(page), "bert's")
	require.Contains(t, text(page), "[redacted]")
}

// A replay out of order names what was applied before, and can be forced.
func TestFormsReplayOutOfOrder(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	o.exec(`delete from holds`)
	o.exec(`delete from waiting`)
	o.exec(`update discarded_jobs set skipped = true`)
	o.exec(`insert into processed_events (consumer, event_id) select 'billing', id from events where pos = 2`)
	a := o.post("/admin/ui/letters/1/replay", url.Values{"reason": {"late"}})
	require.Equal(t, 409, a.status)
	page := o.page(a)
	require.NotNil(t, find(page, "fieldset", "user.signed_up at position 2"))
	require.NotNil(t, find(page, "label", "out of order"))
	require.Equal(t, 303, o.post("/admin/ui/letters/1/replay", url.Values{"reason": {"late"}, "force": {"1"}}).status)
	require.Equal(t, "anna: replay dead letter 1: late", o.last())
}

func TestFormsPauseAndResume(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	a := o.post("/admin/ui/consumers/billing/pause", url.Values{"reason": {"a look"}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "anna: pause consumer billing: a look", o.last())
	page := o.page(o.get(a.header.Get("Location")))
	require.NotNil(t, find(page, "button", "Resume billing"))
	require.Nil(t, find(page, "button", "Pause billing"))
	require.Contains(t, text(o.page(o.get("/admin/ui"))), "billing is paused")
	require.Equal(t, 303, o.post("/admin/ui/consumers/billing/resume", nil).status)
	require.Equal(t, "anna: resume consumer billing: ", o.last())
	require.Equal(t, 404, o.post("/admin/ui/consumers/nobody/pause", nil).status)
	require.Equal(t, 422, o.post("/admin/ui/consumers/billing/pause", url.Values{"reason": {"x\x00"}}).status)
}

func TestFormsBackfill(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	path := "/admin/ui/consumers/mailer/backfill"
	for _, c := range []struct {
		form   url.Values
		status int
		says   string
	}{
		{url.Values{"from": {"yesterday"}, "reason": {"r"}}, 422, "Where it begins must be a time"},
		{url.Values{"from": {"beginning"}, "until": {"noon"}, "reason": {"r"}}, 422, "Where it ends must be a time"},
		{url.Values{"from": {"beginning"}}, 422, "A reason is required"},
		{url.Values{"from": {"beginning"}, "reason": {"the code was wrong"}}, 409, "must be forced"},
	} {
		a := o.post(path, c.form)
		require.Equal(t, c.status, a.status, a.body)
		page := o.page(a)
		require.NotNil(t, find(page, "p", c.says), text(page))
		require.Contains(t, a.body, `value="`+c.form.Get("from")+`"`)
	}
	a := o.post("/admin/ui/consumers/billing/backfill", url.Values{"from": {"beginning"}, "reason": {"r"}})
	require.Equal(t, 409, a.status, "its keys are held")

	a = o.post(path, url.Values{"from": {"2020-01-01"}, "reason": {"the code was wrong"}, "force": {"1"}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "anna: backfill consumer mailer: the code was wrong", o.last())
	page := o.page(o.get(a.header.Get("Location")))
	bar := find(page, "progress", "")
	require.Equal(t, "2", attr(bar, "max"))
	require.Equal(t, "0", attr(bar, "value"))
	require.Equal(t, 404, o.post("/admin/ui/consumers/billing/backfills/1/stop", nil).status, "a run of another")
	a = o.post("/admin/ui/consumers/mailer/backfills/1/stop", url.Values{"reason": {"enough"}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "anna: stop backfill consumer mailer: enough", o.last())
	a = o.post("/admin/ui/consumers/mailer/backfills/1/stop", nil)
	require.Equal(t, 409, a.status)
	require.Contains(t, text(o.page(a)), "is not under way")
}
