package consumers

import (
	"context"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"strings"
	"text/template"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// mailing sends one kind of mail.
type mailing struct {
	pool *pgxpool.Pool
	mail Mailer
	kind string
}

// letter is which mail, to whom.
type letter struct {
	eventID       uuid.UUID
	correlationID string
	userID        uuid.UUID
}

// send writes to the user, whose address is looked up and in no event, and returns the note that it was accepted. A
// refusal that no attempt can mend makes the event a dead letter at once.
func (m mailing) send(ctx context.Context, l letter, write func(name string) (mail.Message, error)) (func(context.Context, pgx.Tx) error, error) {
	user, err := queries.EmailRecipient(ctx, m.pool, l.userID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("there is no user %s", l.userID)
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %s: %w", l.userID, err)
	}
	msg, err := write(user.Name)
	if err != nil {
		return nil, fmt.Errorf("write the %s mail: %w", m.kind, err)
	}
	msg.To, msg.ToName = user.Email, user.Name
	msg.MessageID = m.mail.MessageID(l.eventID, m.kind)
	msg.CorrelationID, msg.EventID = l.correlationID, l.eventID
	if err := m.mail.Send(ctx, msg); err != nil {
		if mail.IsPermanent(err) {
			err = outbox.Permanent(err)
		}
		return nil, err
	}
	return func(ctx context.Context, tx pgx.Tx) error {
		err := queries.EmailRecord(ctx, tx, shopdb.EmailRecordParams{
			EventID: l.eventID, Kind: m.kind, UserID: l.userID, MessageID: msg.MessageID,
		})
		if err != nil {
			return fmt.Errorf("record the %s mail: %w", m.kind, err)
		}
		return nil
	}, nil
}

// functions are what the templates of mails may call.
var functions = map[string]any{
	"money": formatMoney,
	"total": func(l shop.Line) string {
		return formatMoney(shop.Money{Amount: l.UnitPrice.Amount * int64(l.Quantity), Currency: l.UnitPrice.Currency})
	},
}

func textTemplate(text string) *template.Template {
	return template.Must(template.New("text").Funcs(functions).Option("missingkey=error").Parse(text))
}

func htmlTemplate(text string) *htmltemplate.Template {
	return htmltemplate.Must(htmltemplate.New("html").Funcs(functions).Option("missingkey=error").Parse(text))
}

// render writes the parts of a mail; the HTML one escapes what users chose themselves, their names first of all.
func render(subject string, text *template.Template, html *htmltemplate.Template, data any) (mail.Message, error) {
	var t, h strings.Builder
	if err := errors.Join(text.Execute(&t, data), html.Execute(&h, data)); err != nil {
		return mail.Message{}, err
	}
	return mail.Message{Subject: subject, Text: t.String(), HTML: h.String()}, nil
}

// The currencies of ISO 4217 whose minor unit is not a hundredth.
var minorDigits = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "ISK": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
	"VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3,
}

// formatMoney writes 1299 EUR as 12.99 EUR.
func formatMoney(m shop.Money) string {
	digits, ok := minorDigits[m.Currency]
	if !ok {
		digits = 2
	}
	sign, amount := "", uint64(m.Amount)
	if m.Amount < 0 {
		sign, amount = "-", -amount // of the least number, too, which has no positive one
	}
	number := fmt.Sprintf("%0*d", digits+1, amount)
	if digits > 0 {
		number = number[:len(number)-digits] + "." + number[len(number)-digits:]
	}
	return sign + number + " " + m.Currency
}
