package pages_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Where there is nothing, a page says so, and what would be there.
func TestPagesOfAnEmptyService(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.signIn()
	for path, says := range map[string]string{
		"/admin/ui":                        "Nothing needs you",
		"/admin/ui/letters":                "There is none.",
		"/admin/ui/letters?error=x":        "No letter fits.",
		"/admin/ui/search":                 "Type what you know of it.",
		"/admin/ui/consumers":              "There is no consumer yet.",
		"/admin/ui/operations":             "There is none.",
		"/admin/ui/audit":                  "Nobody has done anything yet.",
		"/admin/ui/audit?actor=anna":       "No entry fits.",
		"/admin/ui/letters?done=dismissed": "was given up for this consumer",
	} {
		a := o.get(path)
		require.Equal(t, 200, a.status, path)
		require.Contains(t, text(o.page(a)), says, path)
	}
	for _, path := range all(uuid.NewString())[11:] {
		a := o.get(path)
		require.Equal(t, 404, a.status, path)
		require.Contains(t, text(o.page(a)), "Not found", path)
	}
	for path, names := range map[string]string{
		"/admin/ui/letters?state=gone":      "state must be one of",
		"/admin/ui/letters?since=yesterday": "since must be a time",
		"/admin/ui/letters?cursor=x":        "cursor must be",
		"/admin/ui/letters?key=%00":         "key must be at most",
		"/admin/ui/audit?cursor=-1":         "cursor must be",
	} {
		a := o.get(path)
		require.Equal(t, 422, a.status, path)
		require.Contains(t, text(o.page(a)), names, path)
	}
	a := o.post("/admin/ui/search", url.Values{"query": {"nobody@example.com"}})
	require.Equal(t, 200, a.status)
	require.Contains(t, text(o.page(a)), "Nothing is known of that")
	require.Equal(t, 422, o.post("/admin/ui/search", url.Values{"query": {" "}}).status)
	require.Equal(t, 422, o.post("/admin/ui/search", url.Values{"query": {"x"}, "cursor": {"y"}}).status)
	require.Equal(t, 400, o.post("/admin/ui/search?%zz", nil).status, "a form that cannot be read")
	require.Equal(t, 405, o.post("/admin/ui", nil).status)
}

func TestPagesOfAFullService(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	event := o.fill()
	o.signIn()
	for _, path := range all(event.String())[:11] {
		a := o.get(path)
		require.Equal(t, 200, a.status, path)
		page := text(o.page(a))
		require.NotContains(t, strings.ToLower(page), address, path)
		if !strings.HasPrefix(path, "/admin/ui/letters/") && !strings.HasPrefix(path, "/admin/ui/events/") {
			require.NotContains(t, page, `"secret"`, "%s shows an event's data", path)
		}
	}
	overview := text(o.page(o.get("/admin/ui")))
	require.Contains(t, overview, "1 dead letter holds its key")
	require.Contains(t, overview, "Dead letters by cause")

	letters := o.page(o.get("/admin/ui/letters?consumer=billing&error=BROKEN"))
	require.NotNil(t, find(letters, "td", "k"+poison))
	require.Contains(t, text(o.page(o.get("/admin/ui/letters?consumer=mailer"))), "No letter fits.")

	letter := text(o.page(o.get("/admin/ui/letters/1")))
	for _, says := range []string{"billing gave up on user.signed_up after 2 attempts. 1 event waits behind it.", "broken 2 " + poison, "second line", `"secret"`, "1 earlier attempt"} {
		require.Contains(t, letter, says)
	}
	require.Contains(t, text(o.page(o.get("/admin/ui/audit"))), poison)
}

// Why did this user not get what was due? From nothing but the address, on one screen.
func TestAnAddressLeadsToTheAnswer(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	a := o.post("/admin/ui/search", url.Values{"query": {" ADA@example.com "}})
	require.Equal(t, 303, a.status, a.body)
	require.Equal(t, "/admin/ui/trace/corr-9", a.header.Get("Location"), "an address stands in no URL")
	page := o.page(o.get(a.header.Get("Location")))
	open := find(page, "section", "What has not happened")
	require.NotNil(t, open)
	require.Contains(t, text(open), "dead billing for user.signed_up gave up after 2 attempts; its key waits until dead letter 1 is settled; the last error: broken 2")
	require.Equal(t, "/admin/ui/letters/1", attr(find(open, "a", "Look at dead letter 1"), "href"))
	require.NotContains(t, text(open), "mailer")
	drawn := find(page, "ol", "billing")
	require.NotNil(t, find(drawn, "li", "mailer"))
	crosses := 0
	for n := range drawn.Descendants() {
		if attr(n, "class") == "mark cross" {
			crosses++
		}
	}
	require.Equal(t, 2, crosses, "a mark for each attempt that failed")
	require.NotNil(t, find(page, "td", "gave up after 2 attempts"), "the same in words")

	// The key has two timelines, which are both on the page of the search.
	a = o.post("/admin/ui/search", url.Values{"query": {"k" + poison}})
	require.Equal(t, 200, a.status)
	found := o.page(a)
	require.Contains(t, text(found), "2 things have not happened, in 2 timelines.")
	require.Contains(t, text(find(found, "section", "What has not happened")), "waits behind event")
}

func TestOverviewDataIsWhatIsKept(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.fill()
	o.signIn()
	samples := func(path string) (data struct {
		Samples []struct {
			At        int64
			Consumers map[string]struct {
				Rate *float64
				Lag  int64
				Age  float64
			}
		}
	},
	) {
		a := o.get(path)
		require.Equal(t, 200, a.status, a.body)
		o.guarded(a)
		require.NoError(t, json.Unmarshal([]byte(a.body), &data))
		return data
	}
	first := samples("/admin/ui/data/overview.json").Samples
	require.Len(t, first, 1)
	require.Len(t, first[0].Consumers, 2)
	require.Zero(t, first[0].Consumers["billing"].Lag)
	require.Nil(t, first[0].Consumers["billing"].Rate, "one look tells no rate")
	require.NotEmpty(t, samples("/admin/ui/data/overview.json?after=nonsense").Samples, "what cannot be read asks for all")
}

// Whoever looks at the overview while customers are turned away is told, and why.
func TestOverviewSaysThatWorkIsRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.signIn()
	require.NotContains(t, o.get("/admin/ui").body, "New work is refused")
	o.exec(`update relay_stats set ahead_since = now() - interval '2 minutes', ahead_consumer = $1, ahead_at = now()`, poison)
	var body string
	require.Eventually(t, func() bool {
		body = o.get("/admin/ui").body
		return strings.Contains(body, "New work is refused")
	}, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, body, "for 2 min")
	require.NotContains(t, body, "Nothing needs you")
	require.NotContains(t, body, poison)
}
