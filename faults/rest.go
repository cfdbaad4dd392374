package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

const (
	// settleTime is how long everything may take to come to rest once the last fault is healed and the load has ended.
	settleTime = 3 * time.Minute
	probeKeys  = 8
)

// probe appends events, past all proxies, and returns how long their effects took at every consumer of the harness. Nothing
// that came before is in its way but what its lanes still have to do.
func (s *stage) probe(ctx context.Context, bound time.Duration) (time.Duration, error) {
	began := time.Now()
	var ids []uuid.UUID
	correlation := uuid.NewString()
	append_ := func() bool {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		ids = ids[:0]
		err := pgx.BeginFunc(ctx, s.direct, func(tx pgx.Tx) error {
			for i := range probeKeys {
				kind := faultkit.Noted
				if i == 0 {
					kind = faultkit.Sent
				}
				var id uuid.UUID
				if err := tx.QueryRow(ctx, "select event_id from faults.append($1, $2, '{}', $3)", kind, fmt.Sprintf("probe%d", i), correlation).Scan(&id); err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return nil
		})
		return err == nil
	}
	if err := until(ctx, bound, "a probe is appended", append_); err != nil {
		return time.Since(began), err
	}
	want := 1 + 2*(probeKeys-1) // ledger-outside, and ledger and ledger-set for the others
	err := until(ctx, bound-time.Since(began), "the probe has its effects", func() bool {
		n, err := one[int](ctx, s, "select count(*) from faults.effects where event_id = any($1) and consumer in ('ledger', 'ledger-set', 'ledger-outside')", ids)
		return err == nil && n >= want
	})
	return time.Since(began), err
}

// resumes notes how long it takes from now until work goes on, and holds it to a bound.
func (s *stage) resumes(ctx context.Context, kind string, bound time.Duration) error {
	took, err := s.probe(ctx, max(3*bound, time.Minute))
	if s.overlapping.Load() {
		return err
	}
	s.mu.Lock()
	s.slowest[kind] = max(s.slowest[kind], took)
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case took > bound:
		s.violations.add("%s: work went on after %s, and should after %s", kind, took.Round(time.Millisecond), bound)
	}
	return nil
}

// settle waits until every event is where it ends, and replays what is dead: what its consumer refused for a while, it takes now.
func (s *stage) settle(ctx context.Context) error {
	err := until(ctx, settleTime, "everything comes to rest", func() bool {
		s.bank.open(ctx)
		open, err := one[int64](ctx, s, `select (select count(*) from outbox) + (select count(*) from scheduled)
			+ (select count(*) from holds h where not exists (select from discarded_jobs d where d.consumer = h.consumer and d.event_id = h.event_id and d.state = 'dead'))
			+ (select count(*) from cursors c where exists (select from events e join consumer_subscriptions s on e.type like s.like_pattern
				where s.consumer = c.consumer and e.lane = c.lane and e.pos > c.pos and e.pos > s.from_pos))`)
		if err != nil || open > 0 {
			return false
		}
		dead, err := s.replayDead(ctx)
		if err != nil || dead > 0 {
			sleep(ctx, 200*time.Millisecond)
			return false
		}
		waiting, err := one[int64](ctx, s, "select (select count(*) from waiting) + (select count(*) from holds)")
		return err == nil && waiting == 0
	})
	if errors.Is(err, errLate) {
		return nil // what is stuck, the proof counts
	}
	return err
}

// replayDead replays every dead letter, those that nobody can read with data that can be read, and returns how many there were.
func (s *stage) replayDead(ctx context.Context) (int, error) {
	rows, err := s.direct.Query(ctx, "select id, key, coalesce(data->>'n', '0') from discarded_jobs where state = 'dead' order by id")
	if err != nil {
		return 0, err
	}
	type letter struct {
		ID     int64
		Key, N string
	}
	letters, err := pgx.CollectRows(rows, pgx.RowToStructByPos[letter])
	if err != nil {
		return 0, err
	}
	for _, l := range letters {
		body := `{"reason":"the harness sends it again"}`
		if strings.HasPrefix(l.Key, "poison") {
			body = fmt.Sprintf(`{"reason":"the harness mends it","data":{"n":%s}}`, l.N)
		}
		if err := s.operate(ctx, s.slots[s.rng.IntN(len(s.slots))], "POST", fmt.Sprintf("/admin/dlq/%d/replay", l.ID), body); err != nil {
			return len(letters), err
		}
	}
	return len(letters), nil
}

// operate makes a request of an operator, as soon as the process serves: the one before it may just have been killed. A conflict is an answer.
func (s *stage) operate(ctx context.Context, at *slot, method, path, body string) error {
	if err := at.awaitServe(ctx); err != nil {
		return err
	}
	_, admin := at.addresses()
	if admin == "" {
		return fmt.Errorf("%s: %w", at.name, errNoAnswer)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+admin+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	_, token, _ := strings.Cut(adminToken, ":")
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	if res.StatusCode >= 300 && res.StatusCode != http.StatusConflict && res.StatusCode != http.StatusServiceUnavailable {
		return fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, raw)
	}
	return nil
}

// judge proves a stage that has come to rest: by the database, by the journal, by the judges outside, and by the service's own check.
func (s *stage) judge(ctx context.Context) (verdict, error) {
	conn, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return verdict{}, err
	}
	defer func() { _ = conn.Close(ctx) }()
	v, err := prove(ctx, conn, s.journalPath(), true)
	if err != nil {
		return v, err
	}
	if err := s.judgeOutside(ctx, conn, &v); err != nil {
		return v, err
	}
	if out, err := s.check(ctx); err != nil {
		v.Stuck++
		v.Found = append(v.Found, "outbox check: "+out)
	}
	s.judgeLogs(&v)
	if s.soaked {
		return v, s.judgeSizes(ctx, conn)
	}
	return v, nil
}

func (s *stage) check(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, "check")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+s.url(database))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// judgeOutside asks the provider, the mail server and the ledger outside what was done there.
func (s *stage) judgeOutside(ctx context.Context, conn *pgx.Conn, v *verdict) error {
	charges := s.payments.Ledger()
	rows, err := conn.Query(ctx, "select id::text, status, amount from orders")
	if err != nil {
		return err
	}
	var id, status string
	var amount int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &status, &amount}, func() error {
		c := charges[id]
		delete(charges, id)
		s.bank.judge(id, status, c, v)
		switch {
		case c.Charges > 1 || c.Intents > 1:
			v.Duplicated++
			v.Found = append(v.Found, fmt.Sprintf("order %s was charged %d times, by %d intents", id, c.Charges, c.Intents))
		case status == "paid" && (c.Charges != 1 || c.Amounts[0] != amount):
			v.Lost++
			v.Found = append(v.Found, fmt.Sprintf("order %s over %d is paid, and these were charged: %v", id, amount, c.Amounts))
		case status != "paid" && c.Charges > 0:
			v.Lost++
			v.Found = append(v.Found, fmt.Sprintf("order %s is %s, and was charged", id, status))
		}
		return nil
	}); err != nil {
		return err
	}
	for id, c := range charges {
		v.Lost++
		v.Found = append(v.Found, fmt.Sprintf("there is no order %s, for which %d intents were made and %d charged", id, c.Intents, c.Charges))
	}
	s.bank.say()
	if err := s.judgeMails(ctx, conn, v); err != nil {
		return err
	}
	sent := map[string]bool{}
	for _, e := range s.outside.Entries() {
		sent[e.EventID] = true
	}
	rows, err = conn.Query(ctx, "select id::text from events where type = 'fault.sent'")
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
		if !sent[id] {
			v.Lost++
			v.Found = append(v.Found, "the outside never heard of "+id)
		}
		return nil
	})
	return err
}

// judgeMails counts distinct Message-IDs: a copy has the same.
func (s *stage) judgeMails(ctx context.Context, conn *pgx.Conn, v *verdict) error {
	mails := map[string]map[string]bool{} // by address and subject's kind, the Message-IDs
	for _, m := range s.mails.Messages() {
		for _, to := range m.To {
			kind := "welcome"
			if !strings.Contains(strings.ToLower(m.Subject), "welcome") {
				kind = "receipt"
			}
			if mails[to+" "+kind] == nil {
				mails[to+" "+kind] = map[string]bool{}
			}
			mails[to+" "+kind][m.MessageID] = true
		}
	}
	rows, err := conn.Query(ctx, `select u.email, (select count(*) from orders o where o.user_id = u.id and o.status = 'paid') from users u`)
	if err != nil {
		return err
	}
	var email string
	var paid int
	_, err = pgx.ForEachRow(rows, []any{&email, &paid}, func() error {
		for kind, want := range map[string]int{"welcome": 1, "receipt": paid} {
			switch got := len(mails[email+" "+kind]); {
			case got < want:
				v.Lost++
				v.Found = append(v.Found, fmt.Sprintf("%s has no %s mail", email, kind))
			case got > want:
				v.Duplicated++
				v.Found = append(v.Found, fmt.Sprintf("%s has %d different %s mails", email, got, kind))
			}
		}
		return nil
	})
	return err
}

// judgeLogs looks for what must be in no log, and for deliveries without their correlation id.
func (s *stage) judgeLogs(v *verdict) {
	for _, slot := range s.slots {
		raw, err := os.ReadFile(slot.logs)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			for _, secret := range []string{mailHost, password, "A Customer", "of-faults-only", stripeKey} {
				if strings.Contains(line, secret) {
					s.violations.add("%s: a log line holds what must be in no log: %s", slot.name, strings.TrimSpace(line[:min(300, len(line))]))
				}
			}
			var said struct {
				Msg, EventID  string
				CorrelationID string `json:"correlation_id"`
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "delivery" && said.CorrelationID == "" {
				s.violations.add("%s: a delivery has no correlation id: %s", slot.name, strings.TrimSpace(line))
			}
		}
	}
}
