package payments_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgoutbox/pgoutbox/internal/payments"
)

func TestStripeWalk(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake, stripe := startFake(t)
	p := params("pm_card_visa")

	if _, err := stripe.Find(ctx, p.IdempotencyKey); !errors.Is(err, payments.ErrNotFound) {
		t.Fatalf("find before create: %v", err)
	}
	created, err := stripe.Create(ctx, p)
	if err != nil || created.Status != payments.StatusRequiresConfirmation || created.Amount != 1299 || created.Currency != "EUR" {
		t.Fatalf("create: %+v, %v", created, err)
	}
	if again, err := stripe.Create(ctx, p); err != nil || again != created {
		t.Errorf("the same key: %+v, %v", again, err)
	}
	changed := p
	changed.Amount++
	if _, err := stripe.Create(ctx, changed); !errors.Is(err, payments.ErrKeyReused) {
		t.Errorf("other parameters: %v", err)
	}
	paid, err := stripe.Confirm(ctx, created.ID)
	if err != nil || paid.Status != payments.StatusSucceeded {
		t.Fatalf("confirm: %+v, %v", paid, err)
	}
	if again, err := stripe.Confirm(ctx, created.ID); err != nil || again != paid {
		t.Errorf("confirmed again: %+v, %v", again, err)
	}
	// The index says that it is unconfirmed still: what counts is the intent itself.
	if found, err := stripe.Find(ctx, p.IdempotencyKey); err != nil || found != paid {
		t.Errorf("find: %+v, %v", found, err)
	}
	if _, err := stripe.Get(ctx, "pi_none"); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if fake.charged()[created.ID] != 1 || fake.made() != 1 {
		t.Errorf("%d intents, charges %v", fake.made(), fake.charged())
	}
}

func TestStripeDeclinesAreAnswers(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	fake, stripe := startFake(t)
	intent, err := stripe.Create(ctx, params("pm_card_chargeDeclinedInsufficientFunds"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time Stripe refuses to confirm, and is asked
		declined, err := stripe.Confirm(ctx, intent.ID)
		if err != nil || declined.Status != payments.StatusDeclined || declined.DeclineCode != "insufficient_funds" {
			t.Errorf("%+v, %v", declined, err)
		}
	}
	none, err := stripe.Create(ctx, params("nonsense"))
	if err != nil || none.Status != payments.StatusDeclined || none.DeclineCode != payments.DeclineInvalidMethod || none.ID != "" || none.Amount != 1299 {
		t.Errorf("a method that is none: %+v, %v", none, err)
	}
	slow, err := stripe.Create(ctx, params("pm_slow"))
	if err == nil {
		slow, err = stripe.Confirm(ctx, slow.ID)
	}
	if err != nil || slow.Status != payments.StatusProcessing || slow.Status.Final() {
		t.Errorf("processing: %+v, %v", slow, err)
	}
	if len(fake.charged()) != 0 {
		t.Errorf("charges %v", fake.charged())
	}
}

// An answer that is lost after the work was done must never be taken for "not done", however it is lost.
func TestStripeLostAnswersAreUnknown(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w http.ResponseWriter){
		"cut":      func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"500":      func(w http.ResponseWriter) { fail(w, 500, map[string]any{"type": "api_error", "message": "canary"}) },
		"502 html": func(w http.ResponseWriter) { w.WriteHeader(502); _, _ = w.Write([]byte("<html>canary")) },
		"empty":    func(http.ResponseWriter) {},
		"redirect": func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) },
		"409": func(w http.ResponseWriter) {
			fail(w, 409, map[string]any{"type": "idempotency_error_in_use", "message": "canary"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			fake, stripe := startFake(t)
			p := params("pm_card_visa")
			fake.setFault(func(w http.ResponseWriter, _ string, done bool) bool {
				if done {
					lose(w)
				}
				return done
			})
			mustBeUnknown := func(op string, err error) {
				t.Helper()
				var unknown *payments.UnknownError
				if !errors.As(err, &unknown) || unknown.Op != op || !strings.Contains(err.Error(), "outcome unknown") || strings.Contains(err.Error(), "canary") {
					t.Errorf("%s: %#v", op, err)
				}
			}
			_, err := stripe.Create(ctx, p)
			mustBeUnknown("create", err)
			if !slices.Equal(fake.called(), []string{"POST /v1/payment_intents"}) {
				t.Errorf("the library tried again by itself: %v", fake.called())
			}
			fake.setFault(nil)
			found, err := stripe.Find(ctx, p.IdempotencyKey)
			if err != nil || found.ID == "" {
				t.Fatalf("ask again: %+v, %v", found, err)
			}
			fake.setFault(func(w http.ResponseWriter, _ string, done bool) bool {
				if done {
					lose(w)
				}
				return done
			})
			_, err = stripe.Confirm(ctx, found.ID)
			mustBeUnknown("confirm", err)
			fake.setFault(nil)
			if got, err := stripe.Get(ctx, found.ID); err != nil || got.Status != payments.StatusSucceeded {
				t.Errorf("ask again: %+v, %v", got, err)
			}
			if fake.charged()[found.ID] != 1 || fake.made() != 1 {
				t.Errorf("%d intents, charges %v", fake.made(), fake.charged())
			}
		})
	}
}

// A connection that was used before and is closed under a request says as little as any other, and nothing sends the request again.
func TestStripeSendsOnceOnAUsedConnection(t *testing.T) {
	t.Parallel()
	fake, stripe := startFake(t)
	if _, err := stripe.Get(t.Context(), "pi_none"); !errors.Is(err, payments.ErrNotFound) {
		t.Fatal(err)
	}
	fake.setFault(func(_ http.ResponseWriter, _ string, done bool) bool {
		if done {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	var unknown *payments.UnknownError
	if _, err := stripe.Create(t.Context(), params("pm_card_visa")); !errors.As(err, &unknown) {
		t.Errorf("%#v", err)
	}
	if got := fake.called(); !slices.Equal(got, []string{"GET /v1/payment_intents/pi_none", "POST /v1/payment_intents"}) {
		t.Errorf("asked %v", got)
	}
}

func TestStripeTimeoutIsUnknown(t *testing.T) {
	t.Parallel()
	fake, stripe := startFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	fake.setFault(func(_ http.ResponseWriter, _ string, done bool) bool {
		if done {
			cancel() // the caller gives up when the work is done; the answer comes too late
			<-gone
		}
		return done
	})
	var unknown *payments.UnknownError
	_, err := stripe.Create(ctx, params("pm_card_visa"))
	close(gone)
	if !errors.As(err, &unknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %#v", err)
	}

	// A server that takes the request and answers nothing.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	silent, err := payments.NewStripe(payments.StripeConfig{SecretKey: "sk", URL: "http://" + listener.Addr().String(), Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Confirm(t.Context(), "pi_1"); !errors.As(err, &unknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timed out: %#v", err)
	}
}

func TestStripeUnavailableAndRefused(t *testing.T) {
	t.Parallel()
	fake, stripe := startFake(t)
	fake.setFault(func(w http.ResponseWriter, _ string, done bool) bool {
		if !done {
			fail(w, 429, map[string]any{"type": "invalid_request_error", "code": "rate_limit"})
		}
		return !done
	})
	var unavailable *payments.UnavailableError
	if _, err := stripe.Create(t.Context(), params("pm_card_visa")); !errors.As(err, &unavailable) {
		t.Errorf("too many requests: %#v", err)
	}
	if !slices.Equal(fake.called(), []string{"POST /v1/payment_intents"}) {
		t.Errorf("the library tried again by itself: %v", fake.called())
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	nobody, err := payments.NewStripe(payments.StripeConfig{SecretKey: "sk", URL: "http://" + listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Create(t.Context(), params("pm_card_visa")); !errors.As(err, &unavailable) {
		t.Errorf("nobody listening: %#v", err)
	}

	fake.setFault(func(w http.ResponseWriter, _ string, done bool) bool {
		if !done {
			fail(w, 401, map[string]any{"type": "invalid_request_error", "message": "Invalid API Key provided: sk_test_canary"})
		}
		return !done
	})
	var refused *payments.RefusedError
	_, err = stripe.Create(t.Context(), params("pm_card_visa"))
	if !errors.As(err, &refused) || refused.HTTP != 401 || strings.Contains(err.Error(), "canary") {
		t.Errorf("a wrong key: %#v", err)
	}
	if _, err := payments.NewStripe(payments.StripeConfig{}); err == nil {
		t.Error("no key was taken")
	}
}
