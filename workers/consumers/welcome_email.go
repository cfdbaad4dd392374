package consumers

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func registerWelcomeEmail(reg *outbox.Registry, deps Deps) {
	outbox.HandleExternal(reg, WelcomeEmail, welcome(deps), outbox.On(shop.UserSignedUp), outbox.Timeout(outsideTimeout))
}

// welcome sends the new user a mail. It may go out before billing has started the trial, so it does not say that the
// trial is running.
func welcome(deps Deps) func(context.Context, outbox.Received[shop.SignedUp]) (func(context.Context, pgx.Tx) error, error) {
	m := mailing{pool: deps.Pool, mail: deps.Mail, kind: "welcome"}
	return func(ctx context.Context, e outbox.Received[shop.SignedUp]) (func(context.Context, pgx.Tx) error, error) {
		return m.send(ctx, letter{eventID: e.ID, correlationID: e.CorrelationID, userID: e.Data.UserID}, func(name string) (mail.Message, error) {
			return render(welcomeSubject, welcomeText, welcomeHTML, struct {
				Name      string
				TrialDays int
			}{name, trialDays})
		})
	}
}

const welcomeSubject = "Welcome to the shop"

var (
	welcomeText = textTemplate(`Hello {{.Name}},

welcome, and thank you for signing up. Your trial of {{.TrialDays}} days begins as soon as your account is set up, which is a matter of seconds. It costs nothing, and you need not do anything to end it.

If you did not sign up, somebody gave us your address by mistake: please tell us by answering this mail.

The shop
`)
	welcomeHTML = htmlTemplate(`<p>Hello {{.Name}},</p>
<p>welcome, and thank you for signing up. Your trial of {{.TrialDays}} days begins as soon as your account is set up, which is a matter of seconds. It costs nothing, and you need not do anything to end it.</p>
<p>If you did not sign up, somebody gave us your address by mistake: please tell us by answering this mail.</p>
<p>The shop</p>
`)
)
