package consumers

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/outbox"
)

func registerReceiptEmail(reg *outbox.Registry, deps Deps) {
	outbox.HandleExternal(reg, ReceiptEmail, receiptMail(deps), outbox.On(shop.OrderPaid), outbox.Timeout(outsideTimeout))
}

// receiptMail sends the receipt of a paid order.
func receiptMail(deps Deps) func(context.Context, outbox.Received[shop.OrderSettled]) (func(context.Context, pgx.Tx) error, error) {
	m := mailing{pool: deps.Pool, mail: deps.Mail, kind: "receipt"}
	return func(ctx context.Context, e outbox.Received[shop.OrderSettled]) (func(context.Context, pgx.Tx) error, error) {
		if len(e.Data.Lines) == 0 {
			return nil, errors.New("the event names no lines")
		}
		return m.send(ctx, letter{eventID: e.ID, correlationID: e.CorrelationID, userID: e.Data.UserID}, func(name string) (mail.Message, error) {
			return render(receiptSubject, receiptText, receiptHTML, receipt{Name: name, OrderSettled: e.Data})
		})
	}
}

// receipt is what the templates of a receipt see.
type receipt struct {
	Name string
	shop.OrderSettled
}

const receiptSubject = "Your receipt"

var (
	receiptText = textTemplate(`Hello {{.Name}},

thank you for your order. We have received your payment of {{money .Amount}}.

Order {{.OrderID}}
{{range .Lines}}
  {{.Quantity}} x {{.Name}}, {{money .UnitPrice}} each: {{total .}}{{end}}

Total: {{money .Amount}}
{{with .Reference}}Payment reference: {{.}}
{{end}}
The shop
`)
	receiptHTML = htmlTemplate(`<p>Hello {{.Name}},</p>
<p>thank you for your order. We have received your payment of {{money .Amount}}.</p>
<p>Order {{.OrderID}}</p>
<table>
<tr><th align="left">Item</th><th align="right">Quantity</th><th align="right">Each</th><th align="right">Sum</th></tr>
{{range .Lines}}<tr><td>{{.Name}}</td><td align="right">{{.Quantity}}</td><td align="right">{{money .UnitPrice}}</td><td align="right">{{total .}}</td></tr>
{{end}}<tr><td colspan="3">Total</td><td align="right"><b>{{money .Amount}}</b></td></tr>
</table>
{{with .Reference}}<p>Payment reference: {{.}}</p>
{{end}}<p>The shop</p>
`)
)
