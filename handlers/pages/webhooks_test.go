package pages_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// addWebhook makes an endpoint by its form, and returns the secret that the page shows.
func (o *office) addWebhook(to string) (secret string) {
	o.t.Helper()
	a := o.post("/admin/ui/webhooks", url.Values{"name": {"crm"}, "url": {to}, "types": {"user.*, order.paid"}, "reason": {"they asked"}})
	require.Equal(o.t, 201, a.status, a.body)
	secret = regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+`).FindString(text(find(o.page(a), "section", "This is told once")))
	require.NotEmpty(o.t, secret)
	return secret
}

func TestWebhookPages(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.signIn()
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(poison))
	}))
	t.Cleanup(server.Close)

	page := o.page(o.get("/admin/ui/webhooks"))
	require.Contains(t, text(page), "There is no webhook yet.")
	require.Equal(t, "page", attr(find(find(page, "nav", ""), "a", "Webhooks"), "aria-current"))
	for want, form := range map[string]url.Values{
		"The field name must":  {"name": {poison}, "url": {server.URL}, "types": {"*"}},
		"The field url must":   {"name": {"crm"}, "url": {"ftp://x.example"}, "types": {"*"}},
		"The field types must": {"name": {"crm"}, "url": {server.URL}, "types": {" , "}},
		"The field secret":     {"name": {"crm"}, "url": {server.URL}, "types": {"*"}, "secret": {"canary"}},
		"Where it begins must": {"name": {"crm"}, "url": {server.URL}, "types": {"*"}, "from": {"soon"}},
		"The reason must":      {"name": {"crm"}, "url": {server.URL}, "types": {"*"}, "reason": {"a\x00b"}},
	} {
		a := o.post("/admin/ui/webhooks", form)
		require.Equal(t, 422, a.status, want)
		page := o.page(a)
		require.NotNil(t, find(page, "p", want), "%s: %s", want, text(page))
		require.NotContains(t, a.body, "canary")
		require.Contains(t, a.body, `name="name"`)
	}

	secret := o.addWebhook(server.URL + "/hooks?token=canary")
	require.Equal(t, "anna: create webhook crm: they asked", o.last())
	a := o.post("/admin/ui/webhooks", url.Values{"name": {"crm"}, "url": {server.URL}, "types": {"*"}})
	require.Equal(t, 409, a.status)
	for _, path := range []string{"/admin/ui/webhooks", "/admin/ui/webhooks/crm"} {
		a := o.get(path)
		require.Equal(t, 200, a.status)
		said := text(o.page(a))
		require.Contains(t, said, "working")
		require.Contains(t, said, "order.paid, user.*")
		require.NotContains(t, a.body, secret)
		require.NotContains(t, a.body, "canary")
	}
	for _, path := range []string{"/admin/ui/webhooks/nobody", "/admin/ui/webhooks/%00"} {
		require.Equal(t, 404, o.get(path).status)
		require.Equal(t, 404, o.post(path+"/rotate", url.Values{}).status)
	}

	// What its forms do.
	const path = "/admin/ui/webhooks/crm"
	a = o.post(path+"/test", url.Values{})
	require.Equal(t, 200, a.status)
	require.Contains(t, text(o.page(a)), "The test event was taken, with status 200")
	status = http.StatusTeapot
	a = o.post(path+"/test", url.Values{})
	require.Contains(t, text(o.page(a)), "The test failed: answered 418")

	a = o.post(path+"/rotate", url.Values{"reason": {"it leaked"}})
	require.Equal(t, 200, a.status)
	rotated := regexp.MustCompile(`whsec_[A-Za-z0-9+/=]+`).FindString(text(o.page(a)))
	require.NotEmpty(t, rotated)
	require.NotEqual(t, secret, rotated)
	require.NotContains(t, o.get(path).body, rotated)

	a = o.post(path+"/disable", url.Values{"reason": {poison}})
	require.Equal(t, path+"?done=disabled", a.header.Get("Location"), a.body)
	page = o.page(o.get(a.header.Get("Location")))
	require.Contains(t, text(page), "disabled since")
	require.NotNil(t, find(page, "button", "Enable crm"))
	a = o.post(path+"/enable", url.Values{})
	require.Equal(t, path+"?done=enabled", a.header.Get("Location"), a.body)
	require.NotNil(t, find(o.page(o.get(path)), "button", "Disable crm"))

	a = o.post(path+"/change", url.Values{"types": {"cart.*"}, "url": {"nothing"}})
	require.Equal(t, 422, a.status)
	require.Contains(t, a.body, `value="cart.*"`)
	a = o.post(path+"/change", url.Values{"types": {""}})
	require.Equal(t, 422, a.status)
	a = o.post(path+"/change", url.Values{"types": {"cart.*"}})
	require.Equal(t, path+"?done=changed", a.header.Get("Location"), a.body)
	require.Contains(t, text(o.page(o.get(path))), "cart.*")

	a = o.post(path+"/replay", url.Values{"since": {"soon"}, "reason": {"r"}})
	require.Equal(t, 422, a.status)
	require.Contains(t, text(o.page(a)), "Since when must be a time")
	a = o.post(path+"/replay", url.Values{"since": {"2026-01-31 12:00"}, "reason": {"r"}})
	require.Equal(t, 409, a.status)
	require.Contains(t, text(o.page(a)), "nothing to run")

	a = o.post(path+"/remove", url.Values{"force": {"1"}})
	require.Equal(t, 422, a.status)
	require.Contains(t, text(o.page(a)), "A reason is required")
	a = o.post(path+"/remove", url.Values{"reason": {"they are gone"}})
	require.Equal(t, "/admin/ui/webhooks?done=removed", a.header.Get("Location"), a.body)
	require.Equal(t, 404, o.get(path).status)
	require.NotContains(t, o.get("/admin/ui/audit").body, "canary")
}

// How endpoints are doing is on the list: failing ones say since when, disabled ones why.
func TestWebhookPagesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.signIn()
	o.addWebhook("https://crm.example/")
	o.exec(`update webhooks set failing_since = now() - interval '3 hours', last_status = 500, last_error = 'answered 500', last_at = now()`)
	require.Contains(t, text(o.page(o.get("/admin/ui/webhooks"))), "failing since 3 h ago")
	said := text(o.page(o.get("/admin/ui/webhooks/crm")))
	require.Contains(t, said, "failing since")
	require.Contains(t, said, "answered 500")
	a := o.post("/admin/ui/consumers/webhook-crm/pause", url.Values{})
	require.Equal(t, 303, a.status, a.body)
	require.Contains(t, text(o.page(o.get("/admin/ui/webhooks/crm"))), "paused Its consumer was paused")
	require.NotNil(t, find(o.page(o.get("/admin/ui/webhooks/crm")), "button", "Enable crm"))
}
