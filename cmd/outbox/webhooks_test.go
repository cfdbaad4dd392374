package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// receiver is another service, which keeps what it is sent and verifies it, once it knows the secret.
type receiver struct {
	mu      sync.Mutex
	status  int
	secret  string
	strange int // what was not signed
	taken   []struct{ ID, Type string }
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	var event struct{ ID, Type string }
	verifier, err := standardwebhooks.NewWebhook(r.secret)
	if err != nil || verifier.Verify(body, req.Header) != nil || json.Unmarshal(body, &event) != nil || event.ID != req.Header.Get("webhook-id") {
		r.strange++
	} else if r.status == http.StatusOK {
		r.taken = append(r.taken, event)
	}
	w.WriteHeader(r.status)
}

func (r *receiver) set(status int, secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.secret = status, secret
}

// of are the ids of a type that it has taken.
func (r *receiver) of(eventType string) (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.taken {
		if e.Type == eventType {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// An endpoint that is named while the service runs gets what happens from then on; one that is gone is disabled, and catches up; and what was
// lost there comes again. No log, scrape or audit tells its secret, or what its URL has to hide.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	p := startDev(t, dataDir(t))
	to := &receiver{}
	server := httptest.NewServer(to)
	t.Cleanup(server.Close)
	env := []string{"DATABASE_URL=" + p.database, "OUTBOX_WEBHOOK_NETWORKS=127.0.0.0/8"}
	outbox := func(into any, args ...string) {
		t.Helper()
		code, out, said := commandIn(t, env, append(append([]string{"webhooks"}, args...), "--json")...)
		require.Equal(t, 0, code, "%v: %s", args, said)
		require.NoError(t, json.Unmarshal([]byte(out), into), out)
	}
	var made struct{ Secret, State string }
	outbox(&made, "add", "crm", server.URL+"/hooks?token=canary", "--type=user.*")
	require.Equal(t, "working", made.State)
	to.set(http.StatusOK, made.Secret)
	var tested struct{ Status int }
	outbox(&tested, "test", "crm")
	require.Equal(t, 200, tested.Status)
	require.Len(t, to.of("pgoutbox.test"), 1)

	began := time.Now().Add(-time.Minute).UTC()
	newCustomer(t, p, "first@example.com")
	p.until("it is sent", func() bool { return len(to.of("user.signed_up")) == 1 })
	to.set(http.StatusGone, made.Secret)
	newCustomer(t, p, "second@example.com")
	p.sample(`outbox_webhook_disabled{consumer="webhook-crm"} 1`)
	to.set(http.StatusOK, made.Secret)
	var state struct{ State string }
	outbox(&state, "enable", "crm", "--reason=it is back")
	require.Equal(t, "working", state.State)
	p.until("it catches up", func() bool { return len(to.of("user.signed_up")) == 2 })
	p.sample(`outbox_webhook_disabled{consumer="webhook-crm"} 0`)

	sent := to.of("user.signed_up")
	require.NotEqual(t, sent[0], sent[1])
	p.until("nothing of it is under way", func() bool {
		code, _, _ := commandIn(t, env, "webhooks", "replay", "crm", "--since="+began.Format(time.RFC3339), "--reason=it was lost", "--json")
		return code == 0
	})
	p.until("it comes again", func() bool { return len(to.of("user.signed_up")) == 4 })
	require.ElementsMatch(t, append(sent, sent...), to.of("user.signed_up"))
	require.Zero(t, to.strange)
	code, out, said := commandIn(t, env, "check")
	require.Equal(t, 0, code, "%s %s", out, said)

	logged, err := os.ReadFile(p.log.Name())
	require.NoError(t, err)
	require.Contains(t, string(logged), "webhook disabled")
	var audited string
	require.NoError(t, p.pool().QueryRow(t.Context(), `select string_agg(audit::text, ' ') from audit`).Scan(&audited))
	for _, text := range []string{string(logged), p.scrape(), audited} {
		require.NotContains(t, text, made.Secret)
		require.NotContains(t, text, "canary")
	}
}
