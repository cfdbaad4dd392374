package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// verdict is what a proof found. The four counts are of events, or of an event at a consumer.
type verdict struct {
	Acknowledged int `json:"acknowledged"`
	Effects      int `json:"effects"`
	Lost         int `json:"lost"`
	Duplicated   int `json:"duplicated"`
	Misordered   int `json:"misordered"`
	Stuck        int `json:"stuck"`
	// Found says what was found, an example for each kind.
	Found []string `json:"found,omitempty"`
}

func (v *verdict) add(o verdict) {
	v.Acknowledged += o.Acknowledged
	v.Effects += o.Effects
	v.Lost += o.Lost
	v.Duplicated += o.Duplicated
	v.Misordered += o.Misordered
	v.Stuck += o.Stuck
	v.Found = append(v.Found, o.Found...)
}

func (v *verdict) bad() bool { return v.Lost+v.Duplicated+v.Misordered+v.Stuck > 0 }

// claim is one promise as a query: of what breaks it, each row is a text that says so. What it has found goes into a count.
type claim struct {
	name  string
	sql   string
	count func(*verdict) *int
}

func lost(v *verdict) *int       { return &v.Lost }
func duplicated(v *verdict) *int { return &v.Duplicated }
func misordered(v *verdict) *int { return &v.Misordered }
func stuck(v *verdict) *int      { return &v.Stuck }

// engineClaims hold of the events that raw producers appended.
var engineClaims = []claim{
	{"an acknowledged event is in the log", `
		select event_id::text || ' ' || kind from faults.journal j
		where not exists (select from faults.log e where e.id = j.event_id and e.type = j.kind)`, lost},
	{"state without its event", `
		select s.event_id::text from faults.state s where not exists (select from faults.log e where e.id = s.event_id)`, lost},
	{"an event without its state", `
		select e.id::text from faults.log e where e.type like 'fault.%' and not e.data ? 'from' and e.data ? 'n'
		and not exists (select from faults.state s where s.event_id = e.id)`, lost},
	{"an event stands in the log once", `
		select id::text || ' ' || count(*) from faults.log group by id having count(*) > 1`, duplicated},
	{"an event has its effect", `
		select c.consumer || ' ' || e.id from faults.log e join faults.subscribed c on c.type = e.type and e.pos > c.from_pos
		where not exists (select from faults.effects f where f.event_id = e.id and f.consumer = c.consumer)
		and not exists (select from discarded_jobs d where d.event_id = e.id and d.consumer = c.consumer and d.state = 'dismissed' and d.key like 'letter%')`, lost},
	{"an event has its effect once", `
		select consumer || ' ' || event_id || ' ' || count(*) from faults.effects group by consumer, event_id having count(*) > 1`, duplicated},
	{"an effect has an event", `
		select f.consumer || ' ' || f.event_id from faults.effects f where not exists (select from faults.log e where e.id = f.event_id)`, duplicated},
	{"what a handler appended is there once for each it appended", `
		select e.id || ' ' || count(c.id) from faults.log e join faults.subscribed s on s.type = e.type
		left join faults.log c on c.causation_id = e.id and c.type = 'fault.noted'
		where e.type = 'fault.fanned' group by e.id having count(c.id) <> 3`, duplicated},
	{"the effects of a key are in the order of its numbers", `
		select consumer || ' ' || key || ' ' || n || ' after ' || before from (
			select consumer, key, n, lag(n) over (partition by consumer, key order by seq) as before
			from faults.effects where n > 0) s where n < before`, misordered},
	{"the log has the order of the numbers", `
		select key || ' ' || n from (select key, (data->>'n')::bigint as n, lag((data->>'n')::bigint) over (partition by key order by pos) as before
			from faults.log where type like 'fault.%' and data ? 'n' and not data ? 'from') s where n < before`, misordered},
	{"nothing is left in the outbox", `select id::text from outbox union all select id::text from scheduled`, stuck},
	{"nothing is in quarantine", `select id::text from quarantine`, stuck},
	{"nothing is held or waits", `
		select consumer || ' holds ' || event_id from holds union all select consumer || ' has waiting ' || event_id from waiting`, stuck},
	{"nothing is dead", `select consumer || ' ' || event_id || ' ' || state from discarded_jobs where state in ('dead', 'replaying')`, stuck},
	{"a letter and a delivery carry their event's correlation id", `
		select d.consumer || ' ' || d.event_id from discarded_jobs d join events e on e.id = d.event_id where d.correlation_id <> e.correlation_id`, lost},
	{"what an event causes carries its correlation id", `
		select c.id::text from events c join events e on e.id = c.causation_id where c.correlation_id <> e.correlation_id`, lost},
	{"an event carries the correlation id of its request", `
		select j.event_id::text from faults.journal j join faults.log e on e.id = j.event_id where e.correlation_id <> j.correlation_id`, lost},
}

// shopClaims hold of what customers did.
var shopClaims = []claim{
	{"an account has its event", `
		select u.id::text from users u where not exists (select from faults.log e where e.id = u.signup_event_id)`, lost},
	{"a sign-up has its account", `
		select e.id::text from faults.log e where e.type = 'user.signed_up' and not exists (select from users u where u.signup_event_id = e.id)`, lost},
	{"an account has its trial", `
		select u.id::text from users u where not exists (select from subscriptions s where s.user_id = u.id)`, lost},
	{"an order has its event", `
		select o.id::text from orders o where not exists (select from faults.log e where e.id = o.checkout_event_id)`, lost},
	{"a checkout has its order", `
		select e.id::text from faults.log e where e.type = 'cart.checked_out' and not exists (select from orders o where o.checkout_event_id = e.id)`, lost},
	{"an order has come to an end", `select id::text || ' ' || status from orders where status = 'processing'`, stuck},
	{"an order ended once", `
		select data->>'order_id' from events where type in ('order.paid', 'order.payment_failed') group by 1 having count(*) > 1`, duplicated},
	{"an order's end has its event", `
		select o.id::text from orders o where not exists (select from faults.log e where e.type in ('order.paid', 'order.payment_failed')
		and (e.data->>'order_id')::uuid = o.id)`, lost},
	{"the history of a cart is whole", `
		select cart_id::text from (select h.cart_id, array_agg(h.version order by h.applied_at, h.version) as got, count(*) as n from cart_history h group by 1) s
		where got <> (select array_agg(i::integer) from generate_series(1, n) i)`, misordered},
	{"the stock is what was bought", `
		select p.sku from products p where p.reserved <> 0`, stuck},
}

// prove judges a database that has come to rest.
func prove(ctx context.Context, conn *pgx.Conn, journalPath string, shop bool) (verdict, error) {
	var v verdict
	n, err := loadJournal(ctx, conn, journalPath)
	if err != nil {
		return v, err
	}
	v.Acknowledged = n
	if err := conn.QueryRow(ctx, "select count(*) from faults.effects").Scan(&v.Effects); err != nil {
		return v, fmt.Errorf("count the effects: %w", err)
	}
	claims := engineClaims
	if shop {
		claims = append(claims[:len(claims):len(claims)], shopClaims...)
	}
	for _, c := range claims {
		found, err := c.broken(ctx, conn)
		if err != nil {
			return v, fmt.Errorf("%s: %w", c.name, err)
		}
		if len(found) > 0 {
			*c.count(&v) += len(found)
			v.Found = append(v.Found, fmt.Sprintf("%s: %d, such as %s", c.name, len(found), strings.Join(found[:min(3, len(found))], "; ")))
		}
	}
	return v, nil
}

func (c claim) broken(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	rows, err := conn.Query(ctx, c.sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// loadJournal puts the clients' journal, and who subscribes to what, where the claims can be asked.
func loadJournal(ctx context.Context, conn *pgx.Conn, path string) (int, error) {
	if _, err := conn.Exec(ctx, `drop table if exists faults.journal, faults.subscribed;
		create table faults.journal (event_id uuid, kind text, correlation_id text);
		create or replace view faults.log as
			select pos, id, type, key, data, correlation_id, causation_id from events union all
			select pos, id, type, key, data, correlation_id, causation_id from faults.retired r where not exists (select from events e where e.id = r.id);
		create table faults.subscribed as
			select s.consumer, t.type, s.from_pos from consumer_subscriptions s, (values ('fault.noted'), ('fault.sent'), ('fault.fanned'), ('fault.trouble'), ('fault.renewed')) t (type)
			where t.type like s.like_pattern`); err != nil {
		return 0, fmt.Errorf("prepare the proof: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read the journal: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	n, err := conn.CopyFrom(ctx, pgx.Identifier{"faults", "journal"}, []string{"event_id", "kind", "correlation_id"}, pgx.CopyFromFunc(func() ([]any, error) {
		if !lines.Scan() {
			return nil, lines.Err()
		}
		fields := strings.Split(lines.Text(), ",")
		if len(fields) != 3 {
			return nil, errors.New("the journal has a broken line")
		}
		id, err := uuid.Parse(fields[0])
		return []any{id, fields[1], fields[2]}, err
	}))
	if err != nil {
		return 0, fmt.Errorf("load the journal: %w", err)
	}
	if _, err := conn.Exec(ctx, `create index on faults.journal (event_id); 
		create index if not exists faults_state_event on faults.state (event_id); analyze`); err != nil {
		return 0, fmt.Errorf("prepare the proof: %w", err)
	}
	return int(n), nil
}
