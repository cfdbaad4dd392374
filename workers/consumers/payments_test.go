package consumers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/settle"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// lossy is the sandbox with a bad line: it does what it is asked to and its answers to some calls are lost.
type lossy struct {
	*payments.Sandbox
	mu    sync.Mutex
	lose  map[string]int // call → how many answers to lose
	calls []string
}

func (l *lossy) answer(call string, intent payments.Intent, err error) (payments.Intent, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
	if l.lose[call] > 0 {
		l.lose[call]--
		return payments.Intent{}, &payments.UnknownError{Op: call, Err: context.DeadlineExceeded}
	}
	return intent, err
}

func (l *lossy) Create(ctx context.Context, p payments.CreateParams) (payments.Intent, error) {
	intent, err := l.Sandbox.Create(ctx, p)
	return l.answer("create", intent, err)
}

func (l *lossy) Find(ctx context.Context, key string) (payments.Intent, error) {
	intent, err := l.Sandbox.Find(ctx, key)
	return l.answer("find", intent, err)
}

func (l *lossy) Get(ctx context.Context, id string) (payments.Intent, error) {
	intent, err := l.Sandbox.Get(ctx, id)
	return l.answer("get", intent, err)
}

func (l *lossy) Confirm(ctx context.Context, id string) (payments.Intent, error) {
	intent, err := l.Sandbox.Confirm(ctx, id)
	return l.answer("confirm", intent, err)
}

func (w world) charging(lose map[string]int) (charging, *lossy) {
	provider := &lossy{Sandbox: payments.NewSandbox(w.pool), lose: lose}
	return charging{pool: w.pool, provider: provider, logger: quiet}, provider
}

// deliver attempts the event until it succeeds, as the engine does, and returns the errors on the way.
func (w world) deliver(c charging, e outbox.Received[shop.CheckedOut]) (failures []error) {
	w.Helper()
	for e.Attempt = 1; e.Attempt <= 10; e.Attempt++ {
		record, err := c.charge(w.Context(), e)
		if err == nil {
			err = w.record(record)
		}
		if err == nil {
			return failures
		}
		failures = append(failures, err)
	}
	w.Errorf("it never succeeded: %v", failures)
	return failures
}

func (w world) mustHave(e outbox.Received[shop.CheckedOut], status, state string, charges, intents int) {
	w.Helper()
	id := e.Data.OrderID
	if got := one[string](w, `SELECT o.status || '/' || p.state FROM orders o JOIN payments p ON p.order_id = o.id WHERE o.id = $1`, id); got != status+"/"+state {
		w.Errorf("order/payment are %s", got)
	}
	if got := one[int](w, `SELECT count(*) FROM sandbox.charges c JOIN sandbox.intents i ON i.id = c.intent_id WHERE i.metadata ->> 'order_id' = $1`, id.String()); got != charges {
		w.Errorf("%d charges", got)
	}
	if got := one[int](w, `SELECT count(*) FROM sandbox.intents WHERE idempotency_key = $1`, e.ID.String()); got != intents {
		w.Errorf("%d intents", got)
	}
	want := 1
	if status == "processing" {
		want = 0
	}
	if got := one[int](w, `SELECT count(*) FROM outbox WHERE key = $1 AND type = 'order.' || $2`, id.String(), status); got != want {
		w.Errorf("%d events", got)
	}
}

func TestPaymentsPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, provider := w.charging(nil)
	e := w.checkedOut("pm_card_visa")
	if failures := w.deliver(c, e); len(failures) != 0 {
		t.Error(failures)
	}
	w.mustHave(e, "paid", "succeeded", 1, 1)
	if got := strings.Join(provider.calls, " "); got != "create confirm" {
		t.Errorf("calls: %s", got)
	}
	if failures := w.deliver(c, e); len(failures) != 0 {
		t.Error(failures)
	}
	w.mustHave(e, "paid", "succeeded", 1, 1)
	if len(provider.calls) != 2 {
		t.Errorf("a settled payment was asked about: %v", provider.calls)
	}
}

func TestPaymentsDeclined(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.charging(nil)
	for method, reason := range map[string]string{"pm_card_chargeDeclined": "card_declined", "whatever": payments.DeclineInvalidMethod} {
		e := w.checkedOut(method)
		if failures := w.deliver(c, e); len(failures) != 0 {
			t.Error(failures)
		}
		w.mustHave(e, "payment_failed", "declined", 0, 1)
		if got := one[string](w, `SELECT failure_reason FROM orders WHERE id = $1`, e.Data.OrderID); got != reason {
			t.Errorf("%s: %s", method, got)
		}
	}
}

// Whatever answer is lost, the next attempt asks first, and there is one intent and one charge.
func TestPaymentsUnknownOutcomes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lose  map[string]int
		calls string
	}{
		"create":            {map[string]int{"create": 1}, "create find confirm"},
		"confirm":           {map[string]int{"confirm": 1}, "create confirm get"},
		"both, and asking":  {map[string]int{"create": 1, "find": 1, "confirm": 1, "get": 1}, "create find find confirm get get"},
		"confirm, and more": {map[string]int{"confirm": 1, "get": 3}, "create confirm get get get get"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c, provider := w.charging(tt.lose)
			e := w.checkedOut("pm_card_visa")
			for _, err := range w.deliver(c, e) {
				var unknown *payments.UnknownError
				if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "outcome unknown") || outbox.IsPermanent(err) {
					t.Errorf("%v", err)
				}
			}
			w.mustHave(e, "paid", "succeeded", 1, 1)
			if got := strings.Join(provider.calls, " "); got != tt.calls {
				t.Errorf("calls: %s", got)
			}
		})
	}
}

// While no answer that is an end is known, a charge may have been made; not before the provider was to be asked, and not after the end.
func TestPaymentsMayHaveHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.charging(map[string]int{"create": 1, "confirm": 1})
	e := w.checkedOut("pm_card_visa")
	for _, want := range []string{"", "may have been begun", "may have been charged", ""} {
		if err := pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
			what, err := unsettled(t.Context(), tx, e.ID)
			if (what == "") != (want == "") || !strings.Contains(what, want) || want != "" && !strings.Contains(what, e.Data.OrderID.String()) {
				t.Errorf("want %q, got %q", want, what)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		if record, err := c.charge(t.Context(), e); err == nil {
			if err := w.record(record); err != nil {
				t.Error(err)
			}
		}
		e.Attempt++
	}
	w.mustHave(e, "paid", "succeeded", 1, 1)
}

// A record that does not commit (a crash, a lost fence) leaves nothing but what the next attempt finds.
func TestPaymentsRecordLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, provider := w.charging(nil)
	e := w.checkedOut("pm_card_visa")
	if _, err := c.charge(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	w.mustHave(e, "processing", "created", 1, 1)
	w.deliver(c, e)
	w.mustHave(e, "paid", "succeeded", 1, 1)
	if got := strings.Join(provider.calls, " "); got != "create confirm get" {
		t.Errorf("calls: %s", got)
	}
}

func TestPaymentsOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, provider := w.charging(nil)
	e := w.checkedOut("pm_card_visa")
	if err := provider.SetOutage(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	var unavailable *payments.UnavailableError
	if _, err := c.charge(t.Context(), e); !errors.As(err, &unavailable) || outbox.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if err := provider.SetOutage(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	w.mustHave(e, "processing", "creating", 0, 0)
	w.deliver(c, e)
	w.mustHave(e, "paid", "succeeded", 1, 1)
}

// stuck is a provider whose intents go on processing.
type stuck struct{ *payments.Sandbox }

func (s stuck) Confirm(ctx context.Context, id string) (payments.Intent, error) {
	intent, err := s.Get(ctx, id)
	intent.Status = payments.StatusProcessing
	return intent, err
}

func TestPaymentsStillProcessingThenWebhook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sandbox := payments.NewSandbox(w.pool)
	c := charging{pool: w.pool, provider: stuck{sandbox}, logger: quiet}
	e := w.checkedOut("pm_card_visa")
	if _, err := c.charge(t.Context(), e); err == nil || outbox.IsPermanent(err) {
		t.Fatalf("%v", err)
	}
	w.mustHave(e, "processing", "created", 0, 1)

	// The late result comes by webhook; what the consumer has in hand by then changes nothing any more.
	intent, err := sandbox.Find(t.Context(), e.ID.String())
	if err == nil {
		intent, err = sandbox.Confirm(t.Context(), intent.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.provider = sandbox
	late, err := c.charge(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	hook := payments.WebhookEvent{ID: "evt_1", Type: "payment_intent.succeeded", IntentID: intent.ID, Intent: intent}
	if got, err := settle.Webhook(t.Context(), w.pool, hook); got != settle.Settled || err != nil {
		t.Fatalf("%s, %v", got, err)
	}
	if err := w.record(late); err != nil {
		t.Error(err)
	}
	w.mustHave(e, "paid", "succeeded", 1, 1)
	if record, err := c.charge(t.Context(), e); record != nil || err != nil {
		t.Errorf("after the webhook: %v", err)
	}
}

// Attempts that overlap, as after a rescue of one that was not dead.
func TestPaymentsOverlappingAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.charging(map[string]int{"create": 2, "confirm": 2})
	for range 5 {
		e := w.checkedOut("pm_card_visa")
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { w.deliver(c, e) })
		}
		wg.Wait()
		w.mustHave(e, "paid", "succeeded", 1, 1)
	}
}

func TestPaymentsRefusesWhatDoesNotAgree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, provider := w.charging(nil)
	e := w.checkedOut("pm_card_visa")
	changed := e
	changed.Data.Total.Amount = 1
	if _, err := c.charge(t.Context(), changed); !errors.Is(err, errMismatch) || !outbox.IsPermanent(err) {
		t.Errorf("another amount: %v", err)
	}
	w.deliver(c, e)
	again := e
	again.ID = uuid.Must(uuid.NewV7())
	if _, err := c.charge(t.Context(), again); !errors.Is(err, errMismatch) || !outbox.IsPermanent(err) {
		t.Errorf("a second event for one order: %v", err)
	}
	nowhere := event(shop.CartCheckedOut, shop.CheckedOut{OrderID: uuid.New()})
	if _, err := c.charge(t.Context(), nowhere); !errors.Is(err, settle.ErrNoOrder) || outbox.IsPermanent(err) {
		t.Errorf("no order: %v", err)
	}
	// What did not agree reached nobody; as it left a payment begun, the good attempt after it asked first.
	if got := strings.Join(provider.calls, " "); got != "find create confirm" {
		t.Errorf("calls: %s", got)
	}
	w.mustHave(e, "paid", "succeeded", 1, 1)
}

// forgetful makes a new intent whenever it is asked, as a provider does that has forgotten the key and whose search is
// behind, and does something else before it answers.
type forgetful struct {
	*payments.Sandbox
	meanwhile func()
}

func (f *forgetful) Find(context.Context, string) (payments.Intent, error) {
	return payments.Intent{}, payments.ErrNotFound
}

func (f *forgetful) Create(ctx context.Context, p payments.CreateParams) (payments.Intent, error) {
	p.IdempotencyKey = uuid.NewString()
	intent, err := f.Sandbox.Create(ctx, p)
	if meanwhile := f.meanwhile; meanwhile != nil {
		f.meanwhile = nil
		meanwhile()
	}
	return intent, err
}

// Even when there are two intents, only the one that was committed first is ever confirmed.
func TestPaymentsConfirmsOnlyTheCommittedIntent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	provider := &forgetful{Sandbox: payments.NewSandbox(w.pool)}
	c := charging{pool: w.pool, provider: provider, logger: quiet}
	e := w.checkedOut("pm_card_visa")
	provider.meanwhile = func() {
		if _, err := c.charge(t.Context(), e); err != nil { // another attempt overtakes, and charges
			t.Error(err)
		}
	}
	w.deliver(c, e)
	w.mustHave(e, "paid", "succeeded", 1, 0)
	if n := one[int](w, `SELECT count(*) FROM sandbox.intents`); n != 2 {
		t.Errorf("%d intents: the test did not make what it wants to see", n)
	}
}
