package webhooks_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/outbox/webhooks"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func refused(t *testing.T, field string, err error) {
	t.Helper()
	var invalid *webhooks.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, field, invalid.Field)
}

func TestEndpointsAreMadeChangedAndRemoved(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	all, err := r.store.List(ctx)
	require.NoError(t, err)
	require.NotNil(t, all)
	require.Empty(t, all)

	good := webhooks.NewEndpoint{Name: "crm", URL: "HTTPS://crm.example/hooks?token=canary", Types: []string{"user.*", "cart.checked_out"}}
	for field, bad := range map[string]func(*webhooks.NewEndpoint){
		"name":   func(n *webhooks.NewEndpoint) { n.Name = strings.Repeat("a", 41) },
		"url":    func(n *webhooks.NewEndpoint) { n.URL = "https://127.1.1.1:x/" },
		"types":  func(n *webhooks.NewEndpoint) { n.Types = []string{"user.*", "*.user"} },
		"secret": func(n *webhooks.NewEndpoint) { n.Secret = "whsec_short" },
	} {
		n := good
		bad(&n)
		_, _, err := r.store.Create(ctx, n, anna)
		refused(t, field, err)
	}
	r.holds(`select not exists (select from webhooks) and not exists (select from consumers) and not exists (select from audit)`)

	e, secret, err := r.store.Create(ctx, good, anna)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(secret, "whsec_"))
	require.Equal(t, "crm", e.Name)
	require.Equal(t, "webhook-crm", e.Consumer)
	require.Equal(t, "HTTPS://crm.example/hooks?…", e.URL)
	require.Equal(t, []string{"cart.checked_out", "user.*"}, e.Types)
	require.Equal(t, webhooks.Working, e.State)
	_, _, err = r.store.Create(ctx, good, anna)
	var conflict *outbox.ConflictError
	require.ErrorAs(t, err, &conflict)

	given := "whsec_" + strings.Repeat("QUJD", 10)
	_, secret, err = r.store.Create(ctx, webhooks.NewEndpoint{Name: "given", URL: "https://a.example", Types: []string{"*"}, Secret: given, From: outbox.Beginning}, anna)
	require.NoError(t, err)
	require.Equal(t, given, secret)

	url := "https://b.example/"
	e, err = r.store.Update(ctx, "crm", webhooks.Change{URL: &url, Types: []string{"order.*"}}, anna)
	require.NoError(t, err)
	require.Equal(t, url, e.URL)
	require.Equal(t, []string{"order.*"}, e.Types)
	require.True(t, e.ChangedAt.After(e.CreatedAt))
	bad := "http://b.example/#x"
	_, err = r.store.Update(ctx, "crm", webhooks.Change{URL: &bad}, anna)
	refused(t, "url", err)
	_, err = r.store.Update(ctx, "crm", webhooks.Change{Types: []string{"a..b"}}, anna)
	refused(t, "types", err)
	_, err = r.store.Update(ctx, "crm", webhooks.Change{Types: []string{}}, anna)
	refused(t, "types", err)
	same, err := r.store.Update(ctx, "crm", webhooks.Change{}, anna)
	require.NoError(t, err)
	require.Equal(t, e, same)

	reg, err := r.store.Consumers(ctx)
	require.NoError(t, err)
	require.Len(t, reg.Consumers(), 2)
	again, err := r.store.Consumers(ctx)
	require.NoError(t, err)
	require.Same(t, reg, again)
	removal, err := r.store.Remove(ctx, "crm", anna)
	require.NoError(t, err)
	require.Equal(t, "webhook-crm", removal.Consumer)
	reg, err = r.store.Consumers(ctx)
	require.NoError(t, err)
	require.Len(t, reg.Consumers(), 1)
	_, _, err = r.store.Create(ctx, good, anna)
	require.NoError(t, err, "a name may be used again at once")

	r.holds(`select array_agg(action || ' ' || target order by id) filter (where target like 'webhook %')
		= '{create webhook crm,create webhook given,change webhook crm,remove webhook crm,create webhook crm}' from audit`)
	r.holds(`select count(*) = 0 from audit a where a::text like '%canary%' or a::text like '%whsec%'`)
}

func TestUnknownEndpoints(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	r.exec(`insert into consumers (name, kind) values ('webhook-code', 'external')`) // that is none of the store's
	url := "https://a.example"
	for _, name := range []string{"nobody", "", "code"} {
		_, err := r.store.Get(ctx, name)
		require.ErrorIs(t, err, outbox.ErrNotFound)
		for _, c := range []webhooks.Change{{}, {URL: &url}, {Types: []string{"*"}}} {
			_, err = r.store.Update(ctx, name, c, anna)
			require.ErrorIs(t, err, outbox.ErrNotFound)
		}
		_, err = r.store.Remove(ctx, name, anna)
		require.ErrorIs(t, err, outbox.ErrNotFound)
		require.ErrorIs(t, r.store.Enable(ctx, name, anna), outbox.ErrNotFound)
		require.ErrorIs(t, r.store.Disable(ctx, name, anna), outbox.ErrNotFound)
		_, err = r.store.Rotate(ctx, name, anna)
		require.ErrorIs(t, err, outbox.ErrNotFound)
		_, err = r.store.Test(ctx, name, anna)
		require.ErrorIs(t, err, outbox.ErrNotFound)
		_, err = r.store.Replay(ctx, name, time.Now(), anna)
		require.ErrorIs(t, err, outbox.ErrNotFound)
	}
	r.holds(`select not exists (select from audit)`)
	r.holds(`select paused_at is null from consumers`)
}

// After a rotation both secrets sign, until the old one's time is over.
func TestRotation(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	old := r.create("crm", rec.url, "*")
	rec.secrets = []string{old}
	r.work()
	r.append("note.taken", "k", 0)
	rec.takes(1)
	fresh, err := r.store.Rotate(ctx, "crm", anna)
	require.NoError(t, err)
	require.NotEqual(t, old, fresh)
	r.append("note.taken", "k", 1) // the receiver knows the old one alone
	rec.takes(2)
	rec.mu.Lock()
	rec.secrets = []string{fresh}
	rec.mu.Unlock()
	r.append("note.taken", "k", 2)
	rec.takes(3)
	r.exec(`update webhooks set old_secret_until = clock_timestamp()`)
	r.append("note.taken", "k", 3)
	rec.takes(4)
	var signatures []int
	for _, g := range rec.taken() {
		signatures = append(signatures, strings.Count(g.signatures, "v1,"))
	}
	require.Equal(t, []int{1, 2, 2, 1}, signatures)
	_, err = r.store.Rotate(ctx, "crm", anna)
	require.NoError(t, err)
	r.holds(`select old_secret = $1 from webhooks`, fresh)
}

// A replay sends what was sent, once more, with the same ids and in order.
func TestReplay(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	r.create("crm", rec.url, "*")
	r.work()
	ids := append(r.append("note.taken", "a", 1, 2, 3), r.append("note.taken", "b", 1, 2)...)
	rec.takes(5)
	r.until(`select not exists (select from holds)`)
	_, err := r.store.Replay(ctx, "crm", time.Now().Add(-time.Minute), outbox.Action{Actor: "anna"})
	require.ErrorIs(t, err, outbox.ErrReasonRequired)
	_, err = r.store.Replay(ctx, "crm", time.Time{}, anna)
	refused(t, "since", err)
	run, err := r.store.Replay(ctx, "crm", time.Now().Add(-time.Hour), anna)
	require.NoError(t, err)
	require.EqualValues(t, 5, run.Events)
	rec.takes(10)
	require.Equal(t, []int{1, 2, 3, 1, 2, 3}, rec.of("a"))
	require.Equal(t, []int{1, 2, 1, 2}, rec.of("b"))
	var got []string
	for _, g := range rec.taken()[5:] {
		got = append(got, g.ID)
	}
	require.ElementsMatch(t, ids, got)
	r.until(`select not exists (select from holds)`)
	r.holds(`select count(*) = 1 from audit where action = 'replay' and target = 'webhook crm' and detail ? 'since'`)
	r.agrees()
}

// What only the endpoint's team is to know is nowhere but in the row that is sent by.
func TestNothingTellsSecrets(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	rec := newReceiver(t)
	rec.answers(func(w http.ResponseWriter, _ got) int {
		w.Header().Set("X-Canary", "canary-header")
		return 422
	})
	const name = "crm"
	given := "whsec_" + strings.Repeat("canary+1", 5)
	_, _, err := r.store.Create(ctx, webhooks.NewEndpoint{Name: name, URL: rec.url + "/canary-path?token=canary-query", Types: []string{"*"}, Secret: given}, anna)
	require.NoError(t, err)
	r.work(outbox.MaxAttempts(3))
	r.append("note.taken", "k", 1)
	r.append("note.taken", "l", 1)
	r.until(`select count(*) = 2 from discarded_jobs where state = 'dead'`)
	fresh, err := r.store.Rotate(ctx, name, anna)
	require.NoError(t, err)
	_, err = r.store.Test(ctx, name, anna)
	require.NoError(t, err)
	away := "http://127.0.0.9:1/canary-path?token=canary-query"
	_, err = r.store.Update(ctx, name, webhooks.Change{URL: &away}, anna)
	require.NoError(t, err)
	r.append("note.taken", "m", 1)
	r.until(`select coalesce(last_error, '') = 'no connection' from webhooks`)
	require.NoError(t, r.store.Disable(ctx, name, anna))

	list, err := r.store.List(ctx)
	require.NoError(t, err)
	encoded, err := json.Marshal(list)
	require.NoError(t, err)
	secrets := []string{"canary-query", "canary-answer", "canary-header", "canary+1", strings.TrimPrefix(fresh, "whsec_")}
	where := map[string]string{"list": string(encoded), "log": r.log.String()}
	for _, table := range []string{"audit", "delivery_log", "river_job", "discarded_jobs", "holds", "consumers", "events"} {
		where[table] = one[string](r, `select coalesce(string_agg(t::text, ' '), '') from `+table+` t`)
	}
	for at, text := range where {
		for _, secret := range secrets {
			require.NotContains(t, text, secret, at)
		}
		if at != "list" && at != "audit" { // whoever runs it may know where it is
			require.NotContains(t, text, "canary", at)
		}
	}
	require.Contains(t, where["discarded_jobs"], "answered 422")
	require.Contains(t, string(encoded), `"url":"http://127.0.0.9:1/canary-path?…"`)
}
