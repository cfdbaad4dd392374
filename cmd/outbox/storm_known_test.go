package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const stormCustomer = "A customer of before"

// stormKnown is what the clients know that exists, so that not all they ask for is not found.
type stormKnown struct {
	t         *testing.T
	st        *storm
	cookie    string
	catalogue string
	tokens    []string // of customers

	mu                                     sync.Mutex
	carts, orders, events, letters, things []string // things are operations and backfills
}

const stormMemory = 40

func newStormKnown(t *testing.T, st *storm) *stormKnown {
	t.Helper()
	k := &stormKnown{t: t, st: st}
	k.cookie = st.cookie()
	pool := st.s.pool
	_, err := pool.Exec(t.Context(), `update products set stock = 2000000000`)
	require.NoError(t, err)
	require.NoError(t, pool.QueryRow(t.Context(), `select md5(string_agg(concat(sku, name, price, currency, stock), ';' order by sku)) from products`).Scan(&k.catalogue))
	for range 3 {
		raw, user := make([]byte, 32), uuid.New()
		_, _ = rand.Read(raw)
		token := base64.RawURLEncoding.EncodeToString(raw)
		hash := sha256.Sum256([]byte(token))
		_, err := pool.Exec(t.Context(), `insert into users (id, email, name, password_hash, signup_event_id) values ($1, $2, $3, 'none', $1)`,
			user, user.String()+"@example.com", stormCustomer)
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), `insert into sessions (token_hash, user_id, expires_at) values ($1, $2, now() + interval '10 days')`, hash[:], user)
		require.NoError(t, err)
		k.tokens = append(k.tokens, token)
	}
	k.plant(t.Context())
	return k
}

// plant leaves a consumer with some dead letters, as the engine leaves them: what the requests do to those, they can do again.
func (k *stormKnown) plant(ctx context.Context) {
	const letters = 5
	var planted, known []string
	err := pgx.BeginFunc(ctx, k.st.s.pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			`select pg_advisory_xact_lock(42)`,
			`delete from retired_consumers`,
			`insert into consumers (name, kind) values ('billing', 'tx') on conflict do nothing`,
			`insert into consumer_subscriptions (consumer, pattern) values ('billing', 'user.*') on conflict do nothing`,
			`insert into cursors (consumer, lane, pos) select 'billing', i, 1 from generate_series(0, 63) i on conflict do nothing`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		for range letters {
			event := uuid.Must(uuid.NewV7())
			for _, sql := range []string{
				`with p as (update relay_state set head = head + 1 returning head)
				 insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
				 select head, head, $1::uuid, 'user.signed_up', $1::uuid::text, hashtextextended($1::uuid::text, 0) & 63, '{"user_id":"x"}', 'storm', '', 1, now() from p`,
				`insert into holds (consumer, event_id, key, lane, pos, reason, attempts, job_id) select 'billing', id, key, lane, pos, 'failed', 3, 5 from events where id = $1::uuid`,
				`insert into delivery_log (consumer, event_id, attempt, outcome, error) values ('billing', $1::uuid, 1, 'failed', 'broken')`,
				`select outbox_bury('billing', $1::uuid, 5, null)`,
			} {
				if _, err := tx.Exec(ctx, sql, event); err != nil {
					return err
				}
			}
			planted = append(planted, event.String())
		}
		return tx.QueryRow(ctx, `select array_agg(id::text) from (select id from discarded_jobs order by id desc limit 5) l`).Scan(&known)
	})
	if err != nil {
		k.st.blame(nil, "plant letters: %v", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events, k.letters = remember(k.events, planted...), remember(k.letters, known...)
}

func remember(all []string, more ...string) []string {
	all = append(all, more...)
	return all[max(0, len(all)-stormMemory):]
}

// learn takes from an answer what later requests can ask for.
func (k *stormKnown) learn(route stormRoute, req *http.Request, status int, body []byte) {
	if status >= 300 || req.Method != http.MethodPost {
		return
	}
	var a struct {
		CartID  string `json:"cart_id"`
		OrderID string `json:"order_id"`
		EventID string `json:"event_id"`
		ID      json.Number
	}
	_ = json.Unmarshal(body, &a)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case route.path == "/v1/carts" && a.CartID != "":
		k.carts = remember(k.carts, a.CartID)
	case a.OrderID != "":
		k.orders = remember(k.orders, a.OrderID)
	case route.admin && a.ID != "" && strings.Contains(route.path, "backfill") || strings.HasSuffix(route.path, "/dlq/replay"):
		k.things = remember(k.things, a.ID.String())
	}
	if a.EventID != "" {
		k.events = remember(k.events, a.EventID)
	}
}

// one is something of a kind, or nothing where there is none yet.
func (k *stormKnown) one(m *stormMaker, kind *[]string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(*kind) == 0 {
		return "none"
	}
	return (*kind)[m.IntN(len(*kind))]
}
