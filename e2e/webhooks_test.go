package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/jackc/pgx/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// told is what the receiver says of an event that it verified.
type told struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Key   string `json:"key"`
	Again bool   `json:"again"`
}

// nodeReceiver is the receiver of the examples in a process of its own.
type nodeReceiver struct {
	t   *testing.T
	url string

	mu  sync.Mutex
	all []told
}

// startReceiver installs the receiver as its lockfile has it (node and npm have to be on the PATH), and runs it until the test ends.
func startReceiver(t *testing.T, secret string) *nodeReceiver {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "receiver.js"} {
		file, err := os.ReadFile(filepath.Join("../examples/webhook-receiver", name))
		require.NoError(t, err)
		require.NotContains(t, string(file), `"resolved"`, "a lockfile for whatever registry there is")
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), file, 0o600))
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	install.Dir = dir
	out, err := install.CombinedOutput()
	require.NoError(t, err, string(out))

	cmd := exec.Command("node", "receiver.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret, "PORT=0")
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	r := &nodeReceiver{t: t}
	listening, ended := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if port, ok := strings.CutPrefix(lines.Text(), "listening on "); ok {
				listening <- port
				continue
			}
			var one told
			if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
				t.Errorf("the receiver says %q", lines.Text())
			}
			r.mu.Lock()
			r.all = append(r.all, one)
			r.mu.Unlock()
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	select {
	case port := <-listening:
		r.url = "http://127.0.0.1:" + port + "/hooks"
	case <-ended:
		t.Fatal("the receiver ended at its start: " + log.String())
	}
	return r
}

func (r *nodeReceiver) told() []told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]told{}, r.all...)
}

// operate calls a route of the operators'.
func (s *service) operate(method, path string, body any, status int) (answer map[string]any) {
	s.t.Helper()
	return s.ask(method, s.admin+path, body, status, "Authorization", "Bearer "+operatorToken)
}

// A receiver in another language verifies what comes, in the order of its keys, and takes nothing that was changed; CloudEvents' own library
// reads it.
func TestWebhooksReachAReceiverInNode(t *testing.T) {
	s := startService(t)
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	receiver := startReceiver(t, secret)
	s.operate("POST", "/admin/webhooks", map[string]any{"name": "node", "url": receiver.url, "types": []string{"*"}, "secret": secret}, 201)
	read := make(chan event.Event, 1000)
	library := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e event.Event
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &e)
		}
		if err == nil {
			err = e.Validate()
		}
		if err != nil {
			t.Errorf("no CloudEvent: %v", err)
		}
		read <- e
		w.WriteHeader(204)
	}))
	t.Cleanup(library.Close)
	s.operate("POST", "/admin/webhooks", map[string]any{"name": "library", "url": library.URL, "types": []string{"*"}}, 201)
	require.EqualValues(t, 204, s.operate("POST", "/admin/webhooks/node/test", map[string]any{}, 200)["status"])
	require.Equal(t, "pgoutbox.test", receiver.told()[0].Type)

	for _, address := range []string{"ada@example.com", "grace@example.com"} {
		s.signUp(address)
		s.fillCart(address)
	}
	type row struct{ id, eventType, key string }
	var log []row
	conn, err := pgx.Connect(t.Context(), s.database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	require.Eventually(t, func() bool {
		rows, err := conn.Query(t.Context(), `select id::text, type, key from events order by pos`)
		require.NoError(t, err)
		log, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (e row, err error) {
			return e, r.Scan(&e.id, &e.eventType, &e.key)
		})
		require.NoError(t, err)
		return len(log) >= 6 && len(receiver.told()) > len(log) && len(read) >= len(log)
	}, 60*time.Second, 50*time.Millisecond)

	byKey := func(all []told) map[string][]string {
		ids := map[string][]string{}
		for _, e := range all {
			ids[e.Key] = append(ids[e.Key], e.Type+" "+e.ID)
		}
		return ids
	}
	want := map[string][]string{}
	for _, e := range log {
		want[e.key] = append(want[e.key], e.eventType+" "+e.id)
	}
	got := receiver.told()[1:]
	require.Equal(t, want, byKey(got))
	for _, e := range got {
		require.False(t, e.Again)
	}
	for range log {
		e := <-read
		require.Equal(t, "urn:pgoutbox", e.Source())
		require.Equal(t, e.Subject(), e.Extensions()["partitionkey"])
		require.NotEmpty(t, e.Extensions()["sequence"])
	}

	// The same again, with the same ids, by which the receiver knows them.
	s.operate("POST", "/admin/webhooks/node/replay", map[string]any{"since": time.Now().Add(-time.Hour), "reason": "a test"}, 202)
	require.Eventually(t, func() bool { return len(receiver.told()) == 1+2*len(log) }, 60*time.Second, 50*time.Millisecond)
	again := receiver.told()[1+len(log):]
	require.Equal(t, want, byKey(again))
	for _, e := range again {
		require.True(t, e.Again)
	}

	hook, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	stranger, err := standardwebhooks.NewWebhook("whsec_c3RyYW5nZXJzdHJhbmdlcnN0cmFuZ2Vy")
	require.NoError(t, err)
	now, body := time.Now(), `{"specversion":"1.0","id":"one","type":"order.paid","subject":"k"}`
	for what, try := range map[string]struct {
		by     *standardwebhooks.Webhook
		at     time.Time
		body   string
		status int
	}{
		"as it was signed":     {hook, now, body, 204},
		"changed":              {hook, now, strings.Replace(body, "paid", "void", 1), 401},
		"signed by a stranger": {stranger, now, body, 401},
		"sent long ago":        {hook, now.Add(-time.Hour), body, 401},
	} {
		signature, err := try.by.Sign("one", try.at, []byte(body))
		require.NoError(t, err)
		require.Equal(t, try.status, post(t, receiver.url, try.body, "one", try.at, signature), what)
	}
	require.Len(t, receiver.told(), 2+2*len(log))
}

func post(t *testing.T, url, body, id string, at time.Time, signature string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header = http.Header{
		"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)}, "Webhook-Signature": {signature},
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	return res.StatusCode
}
