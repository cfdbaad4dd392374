package payments_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgoutbox/pgoutbox/internal/payments"
)

// keepable reports whether what an answer says of an intent can be kept: in tables, in events and in errors.
func keepable(intent payments.Intent) bool {
	for _, s := range []string{intent.ID, intent.DeclineCode, intent.Currency} {
		if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s) > 255 {
			return false
		}
	}
	return true
}

// FuzzParseWebhook: only what was signed with the secret is read, and what is read can be kept.
func FuzzParseWebhook(f *testing.F) {
	for _, body := range []string{
		hookSucceeded, hookFailed, hookOther, `{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_\u0000","status":"succeeded"}}}`, `{"object":"v2.core.event"}`, ``, `[]`, "\xff",
		`{"id":"evt_1","object":"event","type":"payment_intent.","data":{"object":{"id":"pi_1","status":"requires_payment_method","currency":"\ud800","last_payment_error":{"code":"a\u0000"}}}}`, `{"id":{},"type":[],"data":7}`,
		`{"id":"evt_1","object":"event","type":"payment_intent.x","data":{"object":{"id":"` + strings.Repeat("p", 300) + `","status":"canceled","customer":{"id":{}},"amount":1e30}}}`, strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(body), "", true)
	}
	f.Add([]byte(hookSucceeded), signed(hookFailed, hookSecret, time.Now()), false)
	f.Add([]byte(hookSucceeded), "t=1,v1=00,v1=,=,t=", false)
	f.Fuzz(func(t *testing.T, body []byte, header string, sign bool) {
		if sign {
			header = signed(string(body), hookSecret, time.Now())
		}
		event, err := payments.ParseWebhook(body, header, hookSecret)
		switch {
		case errors.Is(err, payments.ErrWebhookSignature):
			if sign {
				t.Errorf("its signature was refused: %v", err)
			}
		case errors.Is(err, payments.ErrWebhookBody):
		case err != nil:
			t.Errorf("%v", err)
		case event.ID == "" || event.Type == "" || event.IntentID != event.Intent.ID || !keepable(event.Intent):
			t.Errorf("%+v", event)
		}
		if _, err := payments.ParseWebhook(body, header, hookSecret+"x"); !errors.Is(err, payments.ErrWebhookSignature) {
			t.Errorf("signed with another secret: %v", err)
		}
	})
}

// FuzzStripeAnswers: whatever a server answers, the outcome is known or said to be unknown, and of the answer's text nothing gets
// into an error.
func FuzzStripeAnswers(f *testing.F) {
	const intent = `{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":1299,"currency":"eur"}`
	for _, s := range []struct {
		status int
		body   string
	}{
		{200, intent},
		{200, `{"data":[` + intent + `],"has_more":true,"next_page":"2"}`},
		{200, `{"data":[null,{}]}`},
		{200, `null`},
		{200, ``},
		{200, `<html>c4n4ry`},
		{402, `{"error":{"type":"card_error","code":"c4n4ry","decline_code":"a\u0000b","message":"c4n4ry","payment_intent":` + strings.Replace(intent, "succeeded", "requires_payment_method", 1) + `}}`},
		{402, `{"error":{"type":"card_error","payment_intent":null}}`},
		{400, `{"error":{"type":"invalid_request_error","param":"payment_method","message":"c4n4ry"}}`},
		{404, `{"error":{"code":"resource_missing"}}`},
		{409, `{}`},
		{429, `{"error":{"message":"c4n4ry"}}`},
		{500, `{"error":7}`},
		{302, ``},
		{204, ``},
		{200, `{"id":"pi_` + strings.Repeat("x", 300) + `","status":"succeeded"}`},
		{200, `{"id":"pi\u0000","status":"requires_payment_method","last_payment_error":{"decline_code":"` + strings.Repeat("x", 300) + `"}}`},
		{200, `{"id":"pi_1","status":"new to us"}`},
		{999, `x`},
		{400, `{"error":{"type":"idempotency_error"}}`},
		{200, `{"id":"pi_1","status":"succeeded","amount":99999999999999999999}`},
		{401, `{"error":{"type":"` + strings.Repeat("t", 5000) + `","code":"\u0000"}}`},
	} {
		for call := range uint8(4) {
			f.Add(call, s.status, []byte(s.body), "req_1")
		}
	}
	type answer struct {
		status    int
		body      []byte
		requestID string
	}
	var next atomic.Pointer[answer]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := next.Load()
		w.Header()["Request-Id"] = []string{a.requestID}
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // of some statuses there is none
	}))
	f.Cleanup(server.Close)
	stripe, err := payments.NewStripe(payments.StripeConfig{SecretKey: "sk_test_canary", URL: server.URL})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, call uint8, status int, body []byte, requestID string) {
		if status < 200 || status > 999 {
			return // the server's own library sends no such answer
		}
		next.Store(&answer{status, body, requestID})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var intent payments.Intent
		var err error
		switch call % 4 {
		case 0:
			intent, err = stripe.Create(ctx, params("pm_card_visa"))
		case 1:
			intent, err = stripe.Find(ctx, "key")
		case 2:
			intent, err = stripe.Get(ctx, "pi_1")
		case 3:
			intent, err = stripe.Confirm(ctx, "pi_1")
		}
		if ctx.Err() != nil {
			t.Fatal("it does not come to an end")
		}
		if err == nil {
			known := intent.Status == payments.StatusProcessing || intent.Status == payments.StatusRequiresConfirmation || intent.Status.Final()
			if !known || !keepable(intent) || intent.ID == "" && intent.DeclineCode != payments.DeclineInvalidMethod {
				t.Errorf("%+v", intent)
			}
			return
		}
		var unknown *payments.UnknownError
		var unavailable *payments.UnavailableError
		var refused *payments.RefusedError
		if !errors.As(err, &unknown) && !errors.As(err, &unavailable) && !errors.As(err, &refused) && !errors.Is(err, payments.ErrNotFound) {
			t.Errorf("%#v", err)
		}
		if status >= 500 && !errors.As(err, &unknown) {
			t.Errorf("%d is taken for %v", status, err)
		}
		if text := err.Error(); strings.Contains(text, "sk_test_canary") || !utf8.ValidString(text) || strings.ContainsRune(text, 0) || len(text) > 2000 {
			t.Errorf("%q", text)
		}
	})
}
