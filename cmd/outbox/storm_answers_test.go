package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// faultOf says what is wrong with an answer, or nothing.
func faultOf(req *http.Request, status int, header http.Header, body []byte) string {
	contentType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	switch {
	case status >= 500:
		return "a fault of ours"
	case !outbox.ValidCorrelationID(header.Get("X-Correlation-ID")):
		return "no correlation id"
	case strings.HasSuffix(contentType, "json") && len(body) > 0 && (!json.Valid(body) || !utf8.Valid(body)):
		return "no JSON"
	case status < 400:
		return ""
	case header.Get("HX-Redirect") != "":
		return "" // for a page's own script
	case contentType == "text/html" && strings.HasPrefix(req.URL.Path, pages.Root), strings.HasPrefix(req.URL.Path, pages.River):
		return "" // a page for a person, and River's own answers
	case strings.HasSuffix(req.URL.Path, "/metrics"):
		return "" // the collector's own refusals
	}
	var p struct {
		Type, Title, Detail string
		Status              int
		CorrelationID       string `json:"correlation_id"`
		Errors              []struct{ Pointer, Detail string }
	}
	switch {
	case contentType != "application/problem+json":
		return "a refusal that is no problem document"
	case json.Unmarshal(body, &p) != nil:
		return "a problem document that cannot be read"
	case p.Type == "" || p.Title == "" || p.Status != status || p.CorrelationID != header.Get("X-Correlation-ID"):
		return "a problem document without what each has"
	case p.Detail == "" && len(p.Errors) == 0, p.Type == "validation" && len(p.Errors) == 0:
		return "a problem document that does not say what is wrong"
	}
	return ""
}

// sound requires what the shop holds to fit together: nobody has set a price, an owner or a state, and each thing that was done has its event.
func (st *storm) sound() {
	st.t.Helper()
	for claim, query := range map[string]string{
		"the catalogue is as it was": `select md5(string_agg(concat(sku, name, price, currency, stock), ';' order by sku)) = '` + st.known.catalogue + `' from products`,
		"what is reserved is what orders have reserved": `select coalesce(bool_and(p.reserved = coalesce(o.quantity, 0)), true) from products p
			left join (select l->>'sku' as sku, sum((l->>'quantity')::int) as quantity from orders, jsonb_array_elements(lines) l where stock_state = 'reserved' group by 1) o using (sku)`,
		"an order costs what the catalogue says": `select coalesce(bool_and(o.amount = l.total and o.currency = l.currency), true) from orders o
			join (select id, sum((l->>'quantity')::int * p.price) as total, min(p.currency) as currency from orders, jsonb_array_elements(lines) l
				left join products p on p.sku = l->>'sku' and p.price = (l->'unit_price'->>'amount')::bigint and p.name = l->>'name' group by 1) l using (id)`,
		"an order belongs to the owner of its cart, and is not settled": `select coalesce(bool_and(o.user_id = c.user_id and o.status = 'processing' and c.state = 'checked_out'), true) from orders o
			join carts c on c.id = o.cart_id`,
		"each order has its event, and no other": `select count(*) = (select count(*) from outbox where type = 'cart.checked_out') from orders o join outbox e on e.id = o.checkout_event_id
			where e.type = 'cart.checked_out' and e.key = o.cart_id::text and e.data->>'order_id' = o.id::text and e.data->>'user_id' = o.user_id::text
			and (e.data->'total'->>'amount')::bigint = o.amount and e.data->>'payment_method' = o.payment_method`,
		"no order lacks one": `select count(*) = 0 from orders o where not exists (select from outbox where id = o.checkout_event_id)`,
		"each cart has one event for each version": `select count(*) = 0 from carts c
			where c.version <> (select count(*) from outbox where key = c.id::text) or c.version <> (select max((data->>'cart_version')::int) from outbox where key = c.id::text)`,
		"each account has its event": `select count(*) = 0 from users u where name <> '` + stormCustomer + `'
			and not exists (select from outbox where id = u.signup_event_id and type = 'user.signed_up' and key = u.id::text and data->>'user_id' = u.id::text)`,
		"no event is of something else":                `select count(*) = 0 from outbox where type not in ('user.signed_up', 'cart.created', 'cart.item_added', 'cart.item_removed', 'cart.checked_out')`,
		"an event that was signed up is of an account": `select count(*) = 0 from outbox where type = 'user.signed_up' and not exists (select from users where id::text = key)`,
		"nothing was kept but what was done":           `select count(*) = 0 from idempotency_keys where status not between 200 and 299`,
		"nobody was charged":                           `select (select count(*) from payments) = 0 and (select count(*) from sandbox.charges) = 0`,
	} {
		var holds bool
		require.NoError(st.t, st.s.pool.QueryRow(st.t.Context(), query).Scan(&holds), claim)
		require.True(st.t, holds, claim)
	}
}
