package payments_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

// fakeStripe is a Stripe that can be told to lose its answers or to fail. Tests ask it what it was asked and what money moved.
type fakeStripe struct {
	*stripefake.Stripe

	mu    sync.Mutex
	fault func(w http.ResponseWriter, path string, done bool) bool
	calls []string
}

func startFake(t *testing.T) (*fakeStripe, *payments.Stripe) {
	t.Helper()
	f := &fakeStripe{Stripe: stripefake.New("sk_test_canary", nil)}
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

func (f *fakeStripe) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fakeStripe) charged() map[string]int {
	charges := map[string]int{}
	for _, intent := range f.Intents() {
		if intent.Charges > 0 {
			charges[intent.ID] = intent.Charges
		}
	}
	return charges
}

func (f *fakeStripe) made() int { return len(f.Intents()) }

func (f *fakeStripe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if f.fault != nil && f.fault(w, r.URL.Path, false) {
		return
	}
	answer := httptest.NewRecorder()
	f.Stripe.ServeHTTP(answer, r)
	if f.fault != nil && f.fault(w, r.URL.Path, true) {
		return // done, and the answer is lost
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func fail(w http.ResponseWriter, status int, err map[string]any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": err})
}
