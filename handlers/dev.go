package handlers

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/mailsink"
	"github.com/pgoutbox/pgoutbox/internal/payments"
	"github.com/pgoutbox/pgoutbox/internal/shop"
)

// DevTools are the switches of outbox dev. What is nil has no routes.
type DevTools struct {
	// Mail is the sink that the mails go to.
	Mail interface {
		Messages() []mailsink.Message
		SetMode(code int) error
	}
	// Payments is the sandbox that charges.
	Payments interface {
		SetOutage(ctx context.Context, outage bool) error
		Charges(ctx context.Context) ([]payments.Charge, error)
	}
}

func (d *DevTools) routes(e *echo.Echo) {
	if d.Mail != nil {
		e.GET("/dev/mail", d.mails)
		e.PUT("/dev/mail/mode", d.setMailMode)
	}
	if d.Payments != nil {
		e.GET("/dev/payments/charges", d.charges)
		e.PUT("/dev/payments/mode", d.setPaymentsMode)
	}
}

func (d *DevTools) mails(c echo.Context) error {
	return c.JSON(http.StatusOK, List[mailsink.Message]{Items: d.Mail.Messages()})
}

type mailMode struct {
	SMTPCode *int `json:"smtp_code"`
}

func (d *DevTools) setMailMode(c echo.Context) error {
	var in mailMode
	if err := decode(c, &in); err != nil {
		return err
	}
	if in.SMTPCode == nil {
		return invalid("/smtp_code", "is required")
	}
	if err := d.Mail.SetMode(*in.SMTPCode); errors.Is(err, mailsink.ErrMode) {
		return invalid("/smtp_code", "must be 0 or 250 to accept mails, or 400 to 599 to refuse them")
	} else if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, in)
}

type paymentsMode struct {
	Outage *bool `json:"outage"`
}

func (d *DevTools) setPaymentsMode(c echo.Context) error {
	var in paymentsMode
	if err := decode(c, &in); err != nil {
		return err
	}
	if in.Outage == nil {
		return invalid("/outage", "is required")
	}
	if err := d.Payments.SetOutage(c.Request().Context(), *in.Outage); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, in)
}

type chargeView struct {
	ID        int64      `json:"id"`
	IntentID  string     `json:"intent_id"`
	OrderID   string     `json:"order_id"`
	Amount    shop.Money `json:"amount"`
	CreatedAt time.Time  `json:"created_at"`
}

func (d *DevTools) charges(c echo.Context) error {
	charges, err := d.Payments.Charges(c.Request().Context())
	if err != nil {
		return err
	}
	out := List[chargeView]{Items: make([]chargeView, 0, len(charges))}
	for _, charge := range charges {
		out.Items = append(out.Items, chargeView{
			charge.ID, charge.IntentID, charge.OrderID, money(charge.Amount, charge.Currency), charge.CreatedAt.UTC(),
		})
	}
	return c.JSON(http.StatusOK, out)
}
