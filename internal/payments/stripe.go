package payments

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"
)

// StripeConfig says how Stripe is reached.
type StripeConfig struct {
	// SecretKey is the account's secret key.
	SecretKey string
	// URL is the API's base URL; empty: Stripe's own.
	URL string
	// Timeout bounds one request; 0: 20 s. Keep it below the time a delivery may take.
	Timeout time.Duration
}

// Stripe charges through PaymentIntents.
//
// Stripe keeps an idempotency key for at least 24 hours, and its search finds an intent after at most an hour: so
// asking by search first and creating under the same key if that finds nothing never makes a second intent, however
// late it happens. Only an intent whose id was committed is ever confirmed, and Stripe charges an intent once.
type Stripe struct{ client *stripe.Client }

var _ Provider = (*Stripe)(nil)

// NewStripe returns the adapter. It makes no request.
func NewStripe(config StripeConfig) (*Stripe, error) {
	if config.SecretKey == "" {
		return nil, errors.New("payments: stripe needs a secret key")
	}
	if config.Timeout <= 0 {
		config.Timeout = 20 * time.Second
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
	}
	backend := &stripe.BackendConfig{
		HTTPClient: &http.Client{
			Timeout:   config.Timeout,
			Transport: once{transport},
			// The key is for Stripe alone: an answer that points elsewhere is no answer.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// A retry that the caller does not know of would be a request whose outcome it cannot ask about.
		MaxNetworkRetries: stripe.Int64(0),
		EnableTelemetry:   stripe.Bool(false),
		LeveledLogger:     &stripe.LeveledLogger{Level: stripe.LevelNull}, // answers hold personal data
	}
	if config.URL != "" {
		backend.URL = stripe.String(config.URL)
	}
	return &Stripe{stripe.NewClient(config.SecretKey, stripe.WithBackends(stripe.NewBackendsWithConfig(backend)))}, nil
}

// once sends what has a body once. Otherwise net/http sends a request with an Idempotency-Key again by itself when a connection that was used
// before is closed under it: one more that the caller does not know of.
type once struct{ next http.RoundTripper }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.GetBody != nil {
		sent := *r
		sent.GetBody = nil
		r = &sent
	}
	return o.next.RoundTrip(r)
}

// Create makes an unconfirmed PaymentIntent under the idempotency key, which is also in its metadata.
func (s *Stripe) Create(ctx context.Context, p CreateParams) (Intent, error) {
	params := &stripe.PaymentIntentCreateParams{
		Amount:        stripe.Int64(p.Amount),
		Currency:      stripe.String(strings.ToLower(p.Currency)),
		PaymentMethod: stripe.String(p.Method),
		AutomaticPaymentMethods: &stripe.PaymentIntentCreateAutomaticPaymentMethodsParams{
			Enabled: stripe.Bool(true),
			// Nobody is there to be redirected when the charge is made.
			AllowRedirects: stripe.String("never"),
		},
		Metadata: map[string]string{"event_id": p.IdempotencyKey, "order_id": p.OrderID},
	}
	params.SetIdempotencyKey(p.IdempotencyKey)
	pi, err := s.client.V1PaymentIntents.Create(ctx, params)
	if invalidMethod(err) {
		return Intent{Status: StatusDeclined, DeclineCode: DeclineInvalidMethod, Amount: p.Amount, Currency: p.Currency}, nil
	}
	if err != nil {
		return Intent{}, stripeError("create", err)
	}
	return stripeIntent("create", pi)
}

// Find searches for the intent by the event id in its metadata. Stripe's index may be behind, so ErrNotFound is no
// proof for an intent made within the last hour: Create under the same key settles that.
func (s *Stripe) Find(ctx context.Context, idempotencyKey string) (intent Intent, err error) {
	defer func() {
		if recover() != nil { // stripe-go reads a list that has a null in it through a nil pointer
			intent, err = Intent{}, unreadable("find")
		}
	}()
	params := &stripe.PaymentIntentSearchParams{}
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(idempotencyKey)
	params.Query = "metadata['event_id']:'" + quoted + "'"
	// One page is more than there can be. Whoever says that there is always another must not be followed.
	params.Limit, params.Single = stripe.Int64(100), true
	var found *stripe.PaymentIntent
	for pi, err := range s.client.V1PaymentIntents.Search(ctx, params).All(ctx) {
		if err != nil {
			return Intent{}, stripeError("find", err)
		}
		// Of several, the one that holds money, else the oldest.
		if found == nil || rank(pi) > rank(found) || rank(pi) == rank(found) && pi.Created < found.Created {
			found = pi
		}
	}
	if found == nil {
		return Intent{}, ErrNotFound
	}
	return s.Get(ctx, found.ID) // what the index says of it may be old
}

func rank(pi *stripe.PaymentIntent) int {
	switch pi.Status {
	case stripe.PaymentIntentStatusSucceeded:
		return 2
	case stripe.PaymentIntentStatusProcessing, stripe.PaymentIntentStatusRequiresCapture:
		return 1
	default:
		return 0
	}
}

// Get retrieves an intent.
func (s *Stripe) Get(ctx context.Context, intentID string) (Intent, error) {
	pi, err := s.client.V1PaymentIntents.Retrieve(ctx, intentID, nil)
	if err != nil {
		return Intent{}, stripeError("get", err)
	}
	return stripeIntent("get", pi)
}

// Confirm charges the intent. Stripe refuses to confirm one that is settled: then it is asked what became of it.
func (s *Stripe) Confirm(ctx context.Context, intentID string) (Intent, error) {
	params := &stripe.PaymentIntentConfirmParams{
		// Nobody is there to authenticate either: a card that wants that is declined.
		ErrorOnRequiresAction: stripe.Bool(true),
	}
	pi, err := s.client.V1PaymentIntents.Confirm(ctx, intentID, params)
	var refused *stripe.Error
	switch {
	case err == nil:
		return stripeIntent("confirm", pi)
	case errors.As(err, &refused) && refused.Type == stripe.ErrorTypeCard && refused.PaymentIntent != nil:
		intent, err := stripeIntent("confirm", refused.PaymentIntent)
		if err == nil && intent.Status == StatusDeclined && intent.DeclineCode == "" {
			intent.DeclineCode = declineCode(refused)
		}
		return intent, err
	case errors.As(err, &refused) && (refused.Type == stripe.ErrorTypeCard || refused.Code == stripe.ErrorCodePaymentIntentUnexpectedState):
		intent, err := s.Get(ctx, intentID)
		if err == nil && intent.Status == StatusRequiresConfirmation {
			err = stripeError("confirm", refused)
		}
		return intent, err
	default:
		return Intent{}, stripeError("confirm", err)
	}
}

// stripeIntent translates Stripe's state machine into ours.
func stripeIntent(op string, pi *stripe.PaymentIntent) (Intent, error) {
	intent := Intent{ID: pi.ID, Amount: pi.Amount, Currency: strings.ToUpper(string(pi.Currency))}
	switch pi.Status {
	case stripe.PaymentIntentStatusSucceeded:
		intent.Status = StatusSucceeded
	case stripe.PaymentIntentStatusRequiresConfirmation:
		intent.Status = StatusRequiresConfirmation
	case stripe.PaymentIntentStatusRequiresPaymentMethod:
		// Ours are made with a payment method, so this one lost it: it was declined.
		intent.Status, intent.DeclineCode = StatusDeclined, declineCode(pi.LastPaymentError)
	case stripe.PaymentIntentStatusCanceled:
		intent.Status, intent.DeclineCode = StatusDeclined, "canceled"
	case stripe.PaymentIntentStatusProcessing, stripe.PaymentIntentStatusRequiresAction, stripe.PaymentIntentStatusRequiresCapture:
		intent.Status = StatusProcessing // money may still move
	default:
		return Intent{}, &UnknownError{Op: op, Err: errors.New("an intent in a state that this version does not know")}
	}
	switch {
	case intent.ID == "":
		return Intent{}, &UnknownError{Op: op, Err: errors.New("an answer without an intent")}
	case !plain(intent.ID) || !plain(intent.Currency):
		return Intent{}, unreadable(op)
	}
	return intent, nil
}

func unreadable(op string) error {
	return &UnknownError{Op: op, Err: errors.New("an answer that cannot be read")}
}

// plain reports whether a name or a code of the provider's can go on from here: into tables, which take no NUL, into events,
// which have a size, and into messages.
func plain(s string) bool {
	return len(s) <= maxPlain && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

const maxPlain = 255
