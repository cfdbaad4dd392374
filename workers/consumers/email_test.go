package consumers

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func (w world) welcome(box *postbox) func(e outbox.Received[shop.SignedUp]) (func(context.Context, pgx.Tx) error, error) {
	deps := Deps{Pool: w.pool, Mail: box}
	return func(e outbox.Received[shop.SignedUp]) (func(context.Context, pgx.Tx) error, error) {
		return welcome(deps)(w.Context(), e)
	}
}

func TestWelcomeEmail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	box := &postbox{}
	send := w.welcome(box)
	e := event(shop.UserSignedUp, shop.SignedUp{UserID: w.user, Plan: "basic"})
	for range 2 { // mail is at least once: a repeat is the same mail, and recorded once
		record, err := send(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.record(record); err != nil {
			t.Fatal(err)
		}
	}
	if len(box.mails) != 2 || box.mails[0] != box.mails[1] {
		t.Fatalf("%+v", box.mails)
	}
	m := box.mails[0]
	if m.To != "canary@example.com" || m.ToName != "<b>Ada</b>" || m.MessageID != e.ID.String()+".welcome@example.com" || m.CorrelationID != "corr-1" || m.EventID != e.ID {
		t.Errorf("%+v", m)
	}
	if !strings.Contains(m.Text, "Hello <b>Ada</b>,") || !strings.Contains(m.HTML, "Hello &lt;b&gt;Ada&lt;/b&gt;,") || !strings.Contains(m.Text, "14 days") {
		t.Errorf("text %q, html %q", m.Text, m.HTML)
	}
	if id := one[string](w, `SELECT message_id FROM emails WHERE event_id = $1 AND kind = 'welcome' AND user_id = $2`, e.ID, w.user); id != m.MessageID {
		t.Errorf("recorded %q", id)
	}
}

func TestWelcomeEmailRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := event(shop.UserSignedUp, shop.SignedUp{UserID: w.user, Plan: "basic"})
	for _, tt := range []struct {
		err       error
		permanent bool
	}{
		{&mail.RefusedError{Stage: "RCPT TO", Code: 550}, true},
		{mail.ErrInvalidMessage, true},
		{&mail.RefusedError{Stage: "DATA", Code: 451, Temporary: true}, false},
	} {
		record, err := w.welcome(&postbox{err: tt.err})(e)
		if record != nil || !errors.Is(err, tt.err) || outbox.IsPermanent(err) != tt.permanent {
			t.Errorf("%v: got %v", tt.err, err)
		}
	}
	e.Data.UserID = uuid.New()
	if _, err := w.welcome(&postbox{})(e); err == nil || outbox.IsPermanent(err) {
		t.Errorf("nobody: %v", err)
	}
	if n := one[int64](w, `SELECT count(*) FROM emails`); n != 0 {
		t.Errorf("%d recorded", n)
	}
}

// A user who was erased between the mail and its record leaves no row, and no error.
func TestWelcomeEmailOfTheErased(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	record, err := w.welcome(&postbox{})(event(shop.UserSignedUp, shop.SignedUp{UserID: w.user, Plan: "basic"}))
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`DELETE FROM users WHERE id = $1`, w.user)
	if err := w.record(record); err != nil {
		t.Error(err)
	}
}

func TestReceiptEmail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	box := &postbox{}
	o := w.checkedOut("pm_card_visa")
	o.Data.Lines[0].Name = "Moka <pot>"
	e := settledEvent(shop.OrderPaid, o)
	record, err := receiptMail(Deps{Pool: w.pool, Mail: box})(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.record(record); err != nil {
		t.Fatal(err)
	}
	m := box.mails[0]
	if m.MessageID != e.ID.String()+".receipt@example.com" || m.Subject != receiptSubject {
		t.Errorf("%+v", m)
	}
	for _, want := range []string{"2 x Moka <pot>, 34.50 EUR each: 69.00 EUR", "Total: 69.00 EUR", e.Data.OrderID.String(), "Payment reference: pi_1"} {
		if !strings.Contains(m.Text, want) {
			t.Errorf("the text lacks %q:\n%s", want, m.Text)
		}
	}
	if !strings.Contains(m.HTML, "Moka &lt;pot&gt;") || strings.Contains(m.HTML, "<pot>") {
		t.Errorf("html:\n%s", m.HTML)
	}
	if n := one[int64](w, `SELECT count(*) FROM emails WHERE kind = 'receipt' AND event_id = $1`, e.ID); n != 1 {
		t.Errorf("%d recorded", n)
	}
	e.Data.Lines = nil
	if _, err := receiptMail(Deps{Pool: w.pool, Mail: box})(t.Context(), e); err == nil {
		t.Error("a receipt of nothing was sent")
	}
}

func TestFormatMoney(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]shop.Money{
		"12.99 EUR": {Amount: 1299, Currency: "EUR"}, "0.05 USD": {Amount: 5, Currency: "USD"}, "500 JPY": {Amount: 500, Currency: "JPY"},
		"1.234 KWD": {Amount: 1234, Currency: "KWD"}, "-0.50 EUR": {Amount: -50, Currency: "EUR"}, "0.00 EUR": {Currency: "EUR"},
	} {
		if got := formatMoney(m); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
