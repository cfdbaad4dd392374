package pages_test

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type secret struct {
	Secret string `json:"secret"`
}

// A rehearsal shows what a replay would do, with what stands in the form, and does none of it; data that the code does not take is named, and
// can be forced.
func TestFormsRehearse(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "billing", func(ctx context.Context, tx pgx.Tx, e outbox.Received[secret]) error {
		if e.Data.Secret == "broken" {
			return errors.New("it is broken " + poison)
		}
		if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "bill.sent", Key: "b", Data: e.Data}); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into bills (said) values ($1)`, e.Data.Secret)
		return err
	}, outbox.On("user.*"))
	o := newOfficeOf(t, reg)
	o.exec(`create table bills (id bigint generated always as identity primary key, said text)`)
	o.fill()
	o.signIn()
	const path = "/admin/ui/letters/1/rehearse"

	a := o.post(path, nil)
	require.Equal(t, 200, a.status, a.body)
	part := find(o.page(a), "section", "What a replay would do")
	require.NotNil(t, find(part, "p", "succeeds"))
	require.NotNil(t, find(part, "th", "bills"))
	require.NotNil(t, find(find(part, "details", "insert in"), "pre", poison[1:7]))
	require.NotNil(t, find(part, "details", "appends bill.sent"))
	require.Equal(t, "anna: rehearse dead letter 1: ", o.last())

	a = o.post(path, url.Values{"data": {`{"secret": "broken"}`}, "reason": {"would it?"}})
	require.Equal(t, 200, a.status, a.body)
	page := o.page(a)
	require.NotNil(t, find(page, "pre", "it is broken "+poison))
	require.Contains(t, text(find(page, "textarea", "")), "broken", "what was typed is kept")
	require.Contains(t, a.body, `value="would it?"`)
	require.NotNil(t, find(find(page, "section", "What a replay would do"), "td", `"broken"`), "the difference is shown")

	strange := url.Values{"data": {`{"secret": "x", "other": 1}`}, "reason": {"a slip"}}
	a = o.post(path, strange)
	require.Equal(t, 200, a.status, a.body)
	require.NotNil(t, find(o.page(a), "li", "/other is not a field"))
	a = o.post("/admin/ui/letters/1/replay", strange)
	require.Equal(t, 422, a.status)
	page = o.page(a)
	require.NotNil(t, find(page, "p", "does not take this data: /other is not a field"))
	require.NotNil(t, find(page, "label", "Send it all the same"))

	require.Equal(t, 422, o.post(path, url.Values{"data": {`{`}}).status)
	require.Equal(t, 404, o.post("/admin/ui/letters/2/rehearse", nil).status)
	require.Zero(t, value[int](o, `select (select count(*) from bills) + (select count(*) from outbox) + (select count(*) from event_edits)`))
	require.Equal(t, "dead", value[string](o, `select state from discarded_jobs`))

	strange.Set("force", "1")
	require.Equal(t, 303, o.post("/admin/ui/letters/1/replay", strange).status)
	page = o.page(o.get("/admin/ui/letters/1"))
	require.NotNil(t, find(page, "h3", "Its data was repaired"))
	require.NotNil(t, find(page, "th", "/other"))

	other := newOffice(t)
	other.fill()
	other.signIn()
	a = other.post(path, nil)
	require.Equal(t, 409, a.status)
	require.NotNil(t, find(other.page(a), "p", "this process runs no consumers"))
}

// All letters that fit a filter are sent again from the list, and the operation can be followed and stopped.
func TestFormsReplayAll(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	const path = "/admin/ui/operations"
	page := o.page(o.get("/admin/ui/letters?consumer=billing"))
	form := find(page, "form", "Replay all that fit")
	require.Equal(t, path, attr(form, "action"))
	given := url.Values{}
	for n := range form.Descendants() {
		if n.Data == "input" && (attr(n, "type") != "checkbox" || attr(n, "name") == "canary") {
			given.Set(attr(n, "name"), attr(n, "value"))
		}
	}
	require.Equal(t, "billing", given.Get("consumer"))
	require.Equal(t, "50", given.Get("rate"))
	require.Nil(t, find(o.page(o.get("/admin/ui/letters?state=replayed")), "form", "Replay all that fit"))

	for _, c := range []struct {
		name, value string
		status      int
		says        string
	}{
		{"reason", "", 422, "A reason is required"},
		{"reason", "a\x00", 422, "The reason must have"},
		{"rate", "0", 422, "The rate must be 1 to 1000"},
		{"rate", "many", 422, "The rate must be 1 to 1000"},
		{"consumer", "nobody", 409, "there is nothing to replay"},
		{"since", "yesterday", 422, "since must be a time"},
	} {
		wrong := url.Values{"reason": {"mended"}}
		for name := range given {
			if wrong.Get(name) == "" {
				wrong.Set(name, given.Get(name))
			}
		}
		wrong.Set(c.name, c.value)
		a := o.post(path, wrong)
		require.Equal(t, c.status, a.status, "%v: %s", c, a.body)
		require.Contains(t, text(o.page(a)), c.says)
	}
	require.Zero(t, value[int](o, `select count(*) from operations`))

	given.Set("reason", "the mail is back")
	a := o.post(path, given)
	require.Equal(t, 303, a.status, a.body)
	// The one that found nothing has drawn the first number, and was rolled back.
	require.Equal(t, path+"/2?done=operation", a.header.Get("Location"))
	require.Equal(t, "anna: replay all operation 2: the mail is back", o.last())
	page = o.page(o.get(a.header.Get("Location")))
	require.NotNil(t, find(page, "p", "The operation has begun"))
	require.NotNil(t, find(page, "dd", "consumer billing"))
	require.NotNil(t, find(page, "p", "0 of 1"))
	require.NotNil(t, find(o.page(o.get(path)), "td", "consumer billing"))

	a = o.post(path+"/2/stop", nil)
	require.Equal(t, 422, a.status)
	require.NotNil(t, find(o.page(a), "p", "A reason is required"))
	require.Equal(t, 303, o.post(path+"/2/stop", url.Values{"reason": {"not yet"}}).status)
	a = o.post(path+"/2/stop", url.Values{"reason": {"again"}})
	require.Equal(t, 409, a.status)
	page = o.page(a)
	require.NotNil(t, find(page, "p", "operation 2 is stopped"))
	require.Nil(t, find(page, "button", "Stop"))
	require.Equal(t, 404, o.post(path+"/3/stop", url.Values{"reason": {"x"}}).status)
}
