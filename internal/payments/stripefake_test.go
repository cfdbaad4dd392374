package payments_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgoutbox/pgoutbox/internal/payments"
)

// fakeStripe is a small Stripe with a state: it honours idempotency keys, charges an intent once, and can be told to
// lose its answers or to fail. Tests ask it what money moved.
type fakeStripe struct {
	mu      sync.Mutex
	intents map[string]map[string]any // by id
	byKey   map[string]string         // idempotency key → id
	forms   map[string]string         // idempotency key → parameters
	charges map[string]int            // intent id → times charged
	unfound bool                      // the search index is behind
	fault   func(w http.ResponseWriter, path string, done bool) bool
	calls   []string
}

func startFake(t *testing.T) (*fakeStripe, *payments.Stripe) {
	t.Helper()
	f := &fakeStripe{
		intents: map[string]map[string]any{}, byKey: map[string]string{}, forms: map[string]string{}, charges: map[string]int{},
	}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	client, err := payments.NewStripe(payments.StripeConfig{SecretKey: "sk_test_canary", URL: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return f, client
}

func (f *fakeStripe) setFault(fault func(w http.ResponseWriter, path string, done bool) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// called, charged and made may be asked while the server still ends a request whose answer it lost.
func (f *fakeStripe) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fakeStripe) charged() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.charges)
}

func (f *fakeStripe) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.intents)
}

func (f *fakeStripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if r.Header.Get("Authorization") != "Bearer sk_test_canary" {
		fail(w, 401, map[string]any{"type": "invalid_request_error", "message": "Invalid API Key provided: sk_test_canary"})
		return
	}
	if f.fault != nil && f.fault(w, r.URL.Path, false) {
		return
	}
	if err := r.ParseForm(); err != nil {
		fail(w, 400, map[string]any{"type": "invalid_request_error"})
		return
	}
	answer := httptest.NewRecorder()
	f.route(answer, r)
	if f.fault != nil && f.fault(w, r.URL.Path, true) {
		return // done, and the answer is lost
	}
	w.Header().Set("Request-Id", "req_1")
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (f *fakeStripe) route(w http.ResponseWriter, r *http.Request) {
	id, confirm := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/payment_intents/"), "/confirm")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/payment_intents":
		f.create(w, r)
	case r.URL.Path == "/v1/payment_intents/search":
		f.search(w, r.Form)
	case f.intents[id] == nil:
		fail(w, 404, map[string]any{"type": "invalid_request_error", "code": "resource_missing", "message": "No such payment_intent"})
	case r.Method == http.MethodGet:
		reply(w, f.intents[id])
	case confirm:
		f.confirm(w, f.intents[id])
	}
}

func (f *fakeStripe) create(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	if id, ok := f.byKey[key]; ok {
		if f.forms[key] != r.Form.Encode() {
			fail(w, 400, map[string]any{"type": "idempotency_error", "message": "Keys for idempotent requests can only be used with the same parameters"})
			return
		}
		reply(w, f.intents[id])
		return
	}
	method := r.Form.Get("payment_method")
	if strings.HasPrefix(method, "nonsense") {
		fail(w, 400, map[string]any{"type": "invalid_request_error", "code": "resource_missing", "param": "payment_method", "message": "No such PaymentMethod: '" + method + "'"})
		return
	}
	id := fmt.Sprintf("pi_%d", len(f.intents)+1)
	f.byKey[key], f.forms[key] = id, r.Form.Encode()
	f.intents[id] = map[string]any{
		"id": id, "object": "payment_intent", "status": "requires_confirmation", "amount": json.Number(r.Form.Get("amount")),
		"currency": r.Form.Get("currency"), "created": len(f.intents), "test_method": method,
		"metadata": map[string]string{"event_id": r.Form.Get("metadata[event_id]"), "order_id": r.Form.Get("metadata[order_id]")},
	}
	reply(w, f.intents[id])
}

func (f *fakeStripe) search(w http.ResponseWriter, form url.Values) {
	found := []any{}
	for _, intent := range f.intents {
		want := fmt.Sprintf("metadata['event_id']:'%s'", intent["metadata"].(map[string]string)["event_id"])
		if form.Get("query") == want && !f.unfound {
			stale := map[string]any{"status": "requires_confirmation"} // the index lags behind
			for k, v := range intent {
				if k != "status" {
					stale[k] = v
				}
			}
			found = append(found, stale)
		}
	}
	reply(w, map[string]any{"object": "search_result", "data": found, "has_more": false, "url": "/v1/payment_intents/search"})
}

func (f *fakeStripe) confirm(w http.ResponseWriter, intent map[string]any) {
	if intent["status"] != "requires_confirmation" {
		fail(w, 400, map[string]any{"type": "invalid_request_error", "code": "payment_intent_unexpected_state", "payment_intent": intent})
		return
	}
	switch intent["test_method"] {
	case "pm_card_visa":
		intent["status"] = "succeeded"
		f.charges[intent["id"].(string)]++
		reply(w, intent)
	case "pm_slow":
		intent["status"] = "processing"
		reply(w, intent)
	default:
		intent["status"] = "requires_payment_method"
		declined := map[string]any{"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds", "message": "canary"}
		intent["last_payment_error"] = declined
		withIntent := map[string]any{"payment_intent": intent}
		for k, v := range declined {
			withIntent[k] = v
		}
		fail(w, 402, withIntent)
	}
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func fail(w http.ResponseWriter, status int, err map[string]any) {
	w.WriteHeader(status)
	reply(w, map[string]any{"error": err})
}
