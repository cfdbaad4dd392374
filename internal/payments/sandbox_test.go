package payments_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

func params(method string) payments.CreateParams {
	return payments.CreateParams{
		IdempotencyKey: uuid.Must(uuid.NewV7()).String(), Amount: 1299, Currency: "EUR", Method: method,
		OrderID: uuid.Must(uuid.NewV7()).String(),
	}
}

func TestSandboxCharges(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	sandbox := payments.NewSandbox(testdb.Pool(t))
	p := params("pm_card_visa")

	if _, err := sandbox.Find(ctx, p.IdempotencyKey); !errors.Is(err, payments.ErrNotFound) {
		t.Fatalf("find before create: %v", err)
	}
	created, err := sandbox.Create(ctx, p)
	if err != nil || created.Status != payments.StatusRequiresConfirmation || created.Amount != 1299 || created.Currency != "EUR" {
		t.Fatalf("create: %+v, %v", created, err)
	}
	if again, err := sandbox.Create(ctx, p); err != nil || again != created {
		t.Errorf("the same key: %+v, %v", again, err)
	}
	if found, err := sandbox.Find(ctx, p.IdempotencyKey); err != nil || found != created {
		t.Errorf("find: %+v, %v", found, err)
	}
	if charges, err := sandbox.Charges(ctx); err != nil || len(charges) != 0 {
		t.Errorf("an unconfirmed intent moved money: %+v, %v", charges, err)
	}
	paid, err := sandbox.Confirm(ctx, created.ID)
	if err != nil || paid.Status != payments.StatusSucceeded {
		t.Fatalf("confirm: %+v, %v", paid, err)
	}
	if got, err := sandbox.Get(ctx, created.ID); err != nil || got != paid {
		t.Errorf("get: %+v, %v", got, err)
	}
	charges, err := sandbox.Charges(ctx)
	if err != nil || len(charges) != 1 || charges[0].OrderID != p.OrderID || charges[0].IntentID != created.ID ||
		charges[0].Amount != 1299 || charges[0].Currency != "EUR" || charges[0].CreatedAt.IsZero() {
		t.Errorf("charges: %+v, %v", charges, err)
	}
	if _, err := sandbox.Get(ctx, "pi_none"); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	if _, err := sandbox.Confirm(ctx, "pi_none"); !errors.Is(err, payments.ErrNotFound) {
		t.Errorf("confirm of nothing: %v", err)
	}
}

func TestSandboxRefusesAKeyWithOtherParameters(t *testing.T) {
	t.Parallel()
	sandbox := payments.NewSandbox(testdb.Pool(t))
	p := params("pm_card_visa")
	if _, err := sandbox.Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*payments.CreateParams){
		"amount":   func(p *payments.CreateParams) { p.Amount++ },
		"currency": func(p *payments.CreateParams) { p.Currency = "USD" },
		"method":   func(p *payments.CreateParams) { p.Method = "pm_card_mastercard" },
		"order":    func(p *payments.CreateParams) { p.OrderID = uuid.NewString() },
	} {
		changed := p
		change(&changed)
		if _, err := sandbox.Create(t.Context(), changed); !errors.Is(err, payments.ErrKeyReused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSandboxKnowsStripesTestMethods(t *testing.T) {
	t.Parallel()
	sandbox := payments.NewSandbox(testdb.Pool(t))
	for method, want := range map[string]string{
		"pm_card_visa":                            "",
		"pm_card_mastercard":                      "",
		"pm_card_chargeDeclined":                  "card_declined",
		"pm_card_chargeDeclinedInsufficientFunds": "insufficient_funds",
		"pm_card_chargeDeclinedExpiredCard":       "expired_card",
		"pm_card_nobodyKnows":                     payments.DeclineInvalidMethod,
	} {
		intent, err := sandbox.Create(t.Context(), params(method))
		if err == nil {
			intent, err = sandbox.Confirm(t.Context(), intent.ID)
		}
		paid := intent.Status == payments.StatusSucceeded
		if err != nil || paid != (want == "") || intent.DeclineCode != want {
			t.Errorf("%s: %+v, %v", method, intent, err)
		}
		if again, err := sandbox.Confirm(t.Context(), intent.ID); err != nil || again != intent {
			t.Errorf("%s, confirmed again: %+v, %v", method, again, err)
		}
	}
	if charges, err := sandbox.Charges(t.Context()); err != nil || len(charges) != 2 {
		t.Errorf("charges: %+v, %v", charges, err)
	}
}

// Everything of one key at once, from many processes as it were: one intent, one charge.
func TestSandboxChargesOnceAtOnce(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	sandbox := payments.NewSandbox(testdb.Pool(t))
	p := params("pm_card_visa")
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			intent, err := sandbox.Create(ctx, p)
			if err == nil {
				intent, err = sandbox.Confirm(ctx, intent.ID)
			}
			if err != nil || intent.Status != payments.StatusSucceeded {
				t.Errorf("%+v, %v", intent, err)
			}
			mu.Lock()
			defer mu.Unlock()
			ids[intent.ID] = true
		})
	}
	wg.Wait()
	charges, err := sandbox.Charges(ctx)
	if err != nil || len(charges) != 1 || len(ids) != 1 {
		t.Errorf("%d intents, charges %+v, %v", len(ids), charges, err)
	}
}

func TestSandboxOutage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pool := testdb.Pool(t)
	sandbox := payments.NewSandbox(pool)
	p := params("pm_card_visa")
	intent, err := sandbox.Create(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.SetOutage(ctx, true); err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() (payments.Intent, error){
		"create":  func() (payments.Intent, error) { return sandbox.Create(ctx, params("pm_card_visa")) },
		"find":    func() (payments.Intent, error) { return sandbox.Find(ctx, p.IdempotencyKey) },
		"get":     func() (payments.Intent, error) { return sandbox.Get(ctx, intent.ID) },
		"confirm": func() (payments.Intent, error) { return sandbox.Confirm(ctx, intent.ID) },
	}
	for name, call := range calls {
		var unavailable *payments.UnavailableError
		if _, err := call(); !errors.As(err, &unavailable) || unavailable.Op != name {
			t.Errorf("%s in an outage: %v", name, err)
		}
	}
	if outage, err := payments.NewSandbox(pool).Outage(ctx); err != nil || !outage {
		t.Errorf("the outage is not kept: %v, %v", outage, err)
	}
	if err := sandbox.SetOutage(ctx, false); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls {
		if _, err := call(); err != nil {
			t.Errorf("%s after the outage: %v", name, err)
		}
	}
}

func TestSandboxRefusesWhatIsNoCharge(t *testing.T) {
	t.Parallel()
	sandbox := payments.NewSandbox(testdb.Pool(t))
	for i, change := range []func(*payments.CreateParams){
		func(p *payments.CreateParams) { p.Amount = 0 },
		func(p *payments.CreateParams) { p.Amount = -1 },
		func(p *payments.CreateParams) { p.Currency = "eur" },
		func(p *payments.CreateParams) { p.Currency = "" },
		func(p *payments.CreateParams) { p.IdempotencyKey = "" },
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p := params("pm_card_visa")
			change(&p)
			if _, err := sandbox.Create(t.Context(), p); err == nil {
				t.Errorf("%+v was taken", p)
			}
		})
	}
}
