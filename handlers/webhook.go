package handlers

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/settle"
)

// stripeWebhook takes what the provider says of a payment later than it answered. What it answers with an error the
// provider sends again, for days.
func (a *api) stripeWebhook(c echo.Context) error {
	body, err := readBody(c)
	if err != nil {
		return err
	}
	event, err := payments.ParseWebhook(body, c.Request().Header.Get("Stripe-Signature"), a.secrets...)
	switch {
	case errors.Is(err, payments.ErrWebhookSignature):
		const detail = "is not a signature of this body by the provider, or is too old"
		return &problem{
			status: http.StatusBadRequest, slug: "bad-signature", title: "The signature is not valid",
			detail: "the header Stripe-Signature " + detail, errs: []fieldError{{"Stripe-Signature", detail}},
		}
	case err != nil:
		return malformed("the body is no event of the provider")
	}
	outcome, err := settle.Webhook(context.WithoutCancel(c.Request().Context()), a.pool, event)
	var contradiction *settle.ContradictionError
	if errors.As(err, &contradiction) {
		// It concerns money and will not mend by itself: it shows as an error here, and as a failed delivery there.
		p := internalError(err)
		p.slug, p.title, p.detail = "contradiction", "That does not fit what is known of the order", "somebody has to look"
		return p
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{"outcome": string(outcome)})
}
