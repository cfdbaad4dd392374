package shapes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/lestrrat-go/jsval"
	"github.com/stretchr/testify/require"
	"github.com/stripe/stripe-mock/embedded"
	"github.com/stripe/stripe-mock/server"
	"github.com/stripe/stripe-mock/spec"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

const key = "sk_test_shapes"

// stripe is Stripe's description of its API, read once: it is 8 MB.
var stripe = sync.OnceValues(func() (*described, error) {
	api, err := server.LoadSpec(embedded.OpenAPISpec, "")
	if err != nil {
		return nil, err
	}
	fixtures, err := server.LoadFixtures(embedded.OpenAPIFixtures, "")
	if err != nil {
		return nil, err
	}
	mock, err := server.NewStubServer(fixtures, api, false, false)
	return &described{
		api: api, parts: spec.GetComponentsForValidation(&api.Components), mock: http.HandlerFunc(mock.HandleRequest), made: map[*spec.Schema]*jsval.JSVal{},
	}, err
})

type described struct {
	api   *spec.Spec
	parts *spec.ComponentsForValidation
	mock  http.Handler

	mu   sync.Mutex
	made map[*spec.Schema]*jsval.JSVal
}

// holds holds a value to a schema. What that takes is made once for each: it goes through all that the schema leads to.
func (d *described) holds(schema *spec.Schema, value any) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[schema] == nil {
		if d.made[schema], err = spec.GetValidatorForOpenAPI3Schema(schema, d.parts); err != nil {
			return err
		}
	}
	return d.made[schema].Validate(value)
}

func describedStripe(t *testing.T) *described {
	t.Helper()
	d, err := stripe()
	require.NoError(t, err)
	return d
}

// answers is what an operation may be answered with; a status that it does not name is an error.
func (d *described) answers(method, path string, status int) (*spec.Schema, error) {
	for template, operations := range d.api.Paths {
		pattern := "^" + regexp.MustCompile(`\\\{[a-z_]+\\\}`).ReplaceAllString(regexp.QuoteMeta(string(template)), "[^/]+") + "$"
		of := operations[spec.HTTPVerb(strings.ToLower(method))]
		if of == nil || !regexp.MustCompile(pattern).MatchString(path) || strings.HasSuffix(path, "/search") != strings.HasSuffix(string(template), "/search") {
			continue
		}
		response, ok := of.Responses[spec.StatusCode(fmt.Sprint(status))]
		if !ok {
			response = of.Responses["default"]
		}
		return response.Content["application/json"].Schema, nil
	}
	return nil, fmt.Errorf("there is no %s %s", method, path)
}

// pair is the fake, with stripe-mock asked the same and Stripe's description holding both to what they say.
type pair struct {
	*described
	t    *testing.T
	fake *stripefake.Stripe

	mu      sync.Mutex
	seen    map[string]int // by method and kind of path
	refused []string       // what stripe-mock does not take
	wrong   []string       // what the fake may not answer
}

func startPair(t *testing.T) (*pair, *payments.Stripe) {
	t.Helper()
	p := &pair{described: describedStripe(t), t: t, fake: stripefake.New(key, nil), seen: map[string]int{}}
	web := httptest.NewServer(p)
	t.Cleanup(web.Close)
	client, err := payments.NewStripe(payments.StripeConfig{SecretKey: key, URL: web.URL})
	require.NoError(t, err)
	return p, client
}

func (p *pair) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	answer := func(h http.Handler) *httptest.ResponseRecorder {
		asked := r.Clone(r.Context())
		asked.Body = io.NopCloser(bytes.NewReader(body))
		got := httptest.NewRecorder()
		h.ServeHTTP(got, asked)
		return got
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[r.Method+" "+regexp.MustCompile(`pi_\w+`).ReplaceAllString(r.URL.Path, "ID")]++
	if mock := answer(p.mock); mock.Code != http.StatusOK {
		p.refused = append(p.refused, fmt.Sprintf("%s %s %s: %d %s", r.Method, r.URL, body, mock.Code, mock.Body))
	}
	got := answer(p.fake)
	if err := p.valid(r.Method, r.URL.Path, got); err != nil {
		p.wrong = append(p.wrong, fmt.Sprintf("%s %s: %d %s: %v", r.Method, r.URL.Path, got.Code, got.Body, err))
	}
	w.WriteHeader(got.Code)
	_, _ = w.Write(got.Body.Bytes())
}

func (p *pair) valid(method, path string, got *httptest.ResponseRecorder) error {
	schema, err := p.answers(method, path, got.Code)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(got.Body.Bytes(), &value); err != nil {
		return err
	}
	return p.holds(schema, value)
}

func params(method string) payments.CreateParams {
	return payments.CreateParams{IdempotencyKey: "01890000-0000-7000-8000-" + fmt.Sprintf("%012x", len(method)), Amount: 1299, Currency: "EUR", Method: method, OrderID: "o-1"}
}

// Whatever the adapter asks, Stripe's description has: paths, parameters, their types and places. Whatever the fake answers, it has too.
func TestWalkIsStripes(t *testing.T) {
	t.Parallel()
	p, client := startPair(t)
	ctx := t.Context()
	for method, end := range map[string]payments.Status{
		stripefake.MethodPays: payments.StatusSucceeded, "pm_card_chargeDeclined": payments.StatusDeclined, stripefake.MethodSlow: payments.StatusProcessing,
	} {
		_, err := client.Find(ctx, params(method).IdempotencyKey)
		require.ErrorIs(t, err, payments.ErrNotFound)
		created, err := client.Create(ctx, params(method))
		require.NoError(t, err)
		changed := params(method)
		changed.Amount++
		_, err = client.Create(ctx, changed)
		require.ErrorIs(t, err, payments.ErrKeyReused)
		for range 2 {
			confirmed, err := client.Confirm(ctx, created.ID)
			require.NoError(t, err)
			require.Equal(t, end, confirmed.Status)
		}
		found, err := client.Find(ctx, params(method).IdempotencyKey)
		require.NoError(t, err)
		require.Equal(t, end, found.Status)
	}
	invalid, err := client.Create(ctx, params("nonsense"))
	require.NoError(t, err)
	require.Equal(t, payments.DeclineInvalidMethod, invalid.DeclineCode)
	_, err = client.Get(ctx, "pi_none")
	require.ErrorIs(t, err, payments.ErrNotFound)

	require.Empty(t, p.refused)
	require.Empty(t, p.wrong)
	for _, asked := range []string{
		"POST /v1/payment_intents", "GET /v1/payment_intents/search", "GET /v1/payment_intents/ID", "POST /v1/payment_intents/ID/confirm",
	} {
		require.Positive(t, p.seen[asked], asked)
	}
	require.Len(t, p.seen, 4)
}

// The fake's webhooks are Stripe's events, with a PaymentIntent in them.
func TestEventsAreStripes(t *testing.T) {
	t.Parallel()
	p, client := startPair(t)
	created, err := client.Create(t.Context(), params(stripefake.MethodPays))
	require.NoError(t, err)
	for _, confirm := range []bool{false, true} {
		if confirm {
			_, err := client.Confirm(t.Context(), created.ID)
			require.NoError(t, err)
		}
		raw, err := p.fake.Event(created.ID)
		require.NoError(t, err)
		var event struct {
			Data struct{ Object any }
		}
		var whole any
		require.NoError(t, json.Unmarshal(raw, &event))
		require.NoError(t, json.Unmarshal(raw, &whole))
		for name, value := range map[string]any{"event": whole, "payment_intent": event.Data.Object} {
			require.NoError(t, p.holds(p.api.Components.Schemas[name], value), "%s in %s", name, raw)
		}
	}
}

// What stripe-mock answers, which has every field that Stripe has, the adapter can read.
func TestAnswersOfStripeMockAreRead(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(describedStripe(t).mock)
	t.Cleanup(web.Close)
	client, err := payments.NewStripe(payments.StripeConfig{SecretKey: key, URL: web.URL})
	require.NoError(t, err)
	created, err := client.Create(t.Context(), params(stripefake.MethodPays))
	require.NoError(t, err)
	require.Equal(t, [2]any{int64(1299), "EUR"}, [2]any{created.Amount, created.Currency})
	for what, ask := range map[string]func() (payments.Intent, error){
		"get":     func() (payments.Intent, error) { return client.Get(t.Context(), created.ID) },
		"confirm": func() (payments.Intent, error) { return client.Confirm(t.Context(), created.ID) },
		"find":    func() (payments.Intent, error) { return client.Find(t.Context(), "e-1") },
	} {
		intent, err := ask()
		require.NoError(t, err, what)
		require.NotEmpty(t, intent.ID, what)
	}
	stranger, err := payments.NewStripe(payments.StripeConfig{SecretKey: "nobody", URL: web.URL})
	require.NoError(t, err)
	_, err = stranger.Create(t.Context(), params(stripefake.MethodPays))
	var refused *payments.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusUnauthorized, refused.HTTP)
}

// What holds the walk to Stripe's description does find what is not in it.
func TestWhatStripeDoesNotKnowIsFound(t *testing.T) {
	t.Parallel()
	p, _ := startPair(t)
	for body, fits := range map[string]bool{
		"amount=5&currency=eur":             true,
		"amount=5&currency=eur&colour=blue": false, // a parameter that there is not
		"amount=many&currency=eur":          false, // of another type
		"currency=eur":                      false, // one that has to be there
		"amount=5&currency=eur&confirm=yes": false,
		"amount=5&currency=eur&automatic_payment_methods[enabled]=true&automatic_payment_methods[allow_redirects]=sometimes": false,
	} {
		p.refused = nil
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/payment_intents", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		p.ServeHTTP(httptest.NewRecorder(), r)
		require.Equal(t, fits, len(p.refused) == 0, "%s: %v", body, p.refused)
	}
	for body, fits := range map[string]bool{
		`{"id":"pi_1","object":"payment_intent","created":1,"livemode":false,"status":"succeeded","amount":5}`: true,
		`{"id":"pi_1","object":"payment_intent","created":1,"status":"succeeded"}`:                             false,
		`{"id":"pi_1","object":"payment_intent","created":1,"livemode":false,"status":"paid"}`:                 false,
		`{"id":"pi_1","object":"payment_intent","created":"now","livemode":false,"status":"succeeded"}`:        false,
	} {
		got := httptest.NewRecorder()
		got.Body.WriteString(body)
		require.Equal(t, fits, p.valid("GET", "/v1/payment_intents/pi_1", got) == nil, body)
	}
	_, err := p.answers("GET", "/v1/payment_wishes", 200)
	require.Error(t, err)
}
