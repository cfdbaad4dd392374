package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/faultkit"
)

// tenfold copies each job nine times as it is inserted. The copies have no unique key, so that nothing but the engine refuses them.
func tenfold(ctx context.Context, s *stage, d time.Duration) (int, error) {
	before, err := one[int64](ctx, s, "select last_value from river_job_id_seq")
	if err != nil {
		return 0, err
	}
	if err := s.exec(ctx, `create or replace function faults.tenfold() returns trigger language plpgsql as $$
		begin
			if pg_trigger_depth() = 1 then
				insert into river_job (state, max_attempts, scheduled_at, priority, args, kind, metadata, queue, tags)
				select new.state, new.max_attempts, new.scheduled_at, new.priority, new.args, new.kind, new.metadata, new.queue, new.tags
				from generate_series(1, 9);
			end if;
			return null;
		end $$;
		create or replace trigger faults_tenfold after insert on river_job for each row execute function faults.tenfold()`); err != nil {
		return 0, err
	}
	failed := s.resumes(ctx, "tenfold", afterCrash)
	sleep(ctx, d)
	if err := s.exec(ctx, "drop trigger faults_tenfold on river_job"); err != nil {
		return 0, err
	}
	after, err := one[int64](ctx, s, "select last_value from river_job_id_seq")
	if err != nil || failed != nil {
		return 0, errors.Join(failed, err)
	}
	return max(1, int(after-before)*9/10), s.resumes(ctx, "tenfold", afterCrash)
}

// exec runs DDL, which waits for others and must not keep them waiting for long.
func (s *stage) exec(ctx context.Context, sql string) error {
	var err error
	return errors.Join(until(ctx, 20*time.Second, "a lock for DDL", func() bool {
		_, err = s.direct.Exec(ctx, "set lock_timeout = '500ms'; "+sql+"; reset lock_timeout")
		return err == nil
	}), err)
}

// mostDeep is how deep data may nest: Go's decoder goes no further.
const mostDeep = 10_000

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// poisons are data that a producer can write, or cannot. What is accepted must hurt nobody else.
func poisons() []raw {
	return []raw{
		{faultkit.Trouble, "poison-type", `{"do": 5, "times": "many"}`},
		{faultkit.Trouble, "poison-deep", `{"do": ` + nested(mostDeep-1) + `}`},
		{faultkit.Trouble, "poison-large", `{"do": "apply", "ballast": "` + strings.Repeat("x", 1<<20-100) + `"}`},
		{faultkit.Trouble, "poison-panic", `{"do": "panic", "times": 2}`},
		{faultkit.Trouble, "poison-permanent", `{"do": "permanent", "times": 1}`},
		{faultkit.Trouble, "poison-division", `{"do": "division", "times": 2}`},
		{faultkit.Trouble, "poison-number", `{"do": "apply", "times": 1e400}`},
		{faultkit.Trouble, "poison-hang", `{"do": "hang", "times": 1}`},
	}
}

// refusals are data that the outbox must refuse, with an error of class 22 or 23 or 54, and without a trace.
func refusals() []raw {
	return []raw{
		{faultkit.Trouble, "refused-utf8\xff", `{}`},
		{faultkit.Trouble, "refused-data", "{\"do\": \"\xc3\x28\"}"},
		{faultkit.Trouble, "refused-nul", `{"do": "\u0000"}`},
		{faultkit.Trouble, "refused-deep", `{"do": ` + nested(mostDeep) + `}`},
		{faultkit.Trouble, "refused-size", `{"do": "` + strings.Repeat("x", 1<<20) + `"}`},
		{faultkit.Trouble, strings.Repeat("k", 256), `{}`},
		{"no type", "refused-type", `{}`},
	}
}

func poison(ctx context.Context, s *stage, d time.Duration) (int, error) {
	n := 0
	for _, r := range refusals() {
		_, err := s.direct.Exec(ctx, "select faults.append($1, $2, $3::jsonb)", r.kind, r.key, r.data)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || !slices.Contains([]string{"22", "23", "54"}, pg.Code[:2]) {
			return n, fmt.Errorf("%q was not refused as data: %w", r.key[:min(20, len(r.key))], err)
		}
		n++
	}
	for _, r := range poisons() {
		if _, err := s.direct.Exec(ctx, "select faults.append($1, $2, $3::jsonb)", r.kind, r.key, r.data); err != nil {
			return n, fmt.Errorf("%s: %w", r.key, err)
		}
		// It has successors, which have to wait and then to follow.
		if err := s.trouble(ctx, "apply", 0, r.key); err != nil {
			return n, err
		}
		n++
	}
	if err := s.resumes(ctx, "poison", afterCrash); err != nil {
		return n, err
	}
	// At the consumer that is hurt, other keys go on too.
	key := fmt.Sprintf("healthy%d", s.rng.IntN(1<<30))
	if err := s.trouble(ctx, "apply", 0, key); err != nil {
		return n, err
	}
	began := time.Now()
	if err := s.attempted(ctx, key, afterCrash); err != nil {
		return n, fmt.Errorf("another key at the consumer that is hurt: %w", err)
	}
	s.note("poison-neighbour", time.Since(began))
	sleep(ctx, d)
	return n, nil
}

// rollingDeploy replaces one process after the other by a build with another consumer, another event type and another migration.
func rollingDeploy(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	cmd := exec.CommandContext(ctx, s.binary, "migrate", "up")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+s.url(database), faultkit.EnvNext+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("migrate to the next build: %w: %s", err, out)
	}
	watching, end := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.available(watching) })
	defer watch.Wait()
	defer end()
	s.next = true
	for i, slot := range s.slots {
		if err := slot.restart(ctx, map[string]string{faultkit.EnvNext: "1"}); err != nil {
			return i, err
		}
		if _, err := s.direct.Exec(ctx, "select faults.append($1, 'renewed', '{}') from generate_series(1, 10)", faultkit.Renewed); err != nil {
			return i, err
		}
	}
	err := until(ctx, afterCrash, "the new consumer has what is its own", func() bool {
		n, err := one[int](ctx, s, "select count(*) from faults.effects where consumer = 'newcomer' and key = 'renewed'")
		return err == nil && n >= 10*len(s.slots)
	})
	if err != nil {
		return len(s.slots), err
	}
	return len(s.slots), s.resumes(ctx, "deploy", afterCrash)
}

// available sees to it that at every moment some process answers.
func (s *stage) available(ctx context.Context) {
	away := time.Time{}
	for sleep(ctx, 50*time.Millisecond) {
		up := false
		for _, p := range s.apis {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			status, _, err := get(ctx, "http://"+p.Addr()+"/v1/products")
			cancel()
			up = up || err == nil && status == http.StatusOK
		}
		switch {
		case up || ctx.Err() != nil:
			away = time.Time{}
		case away.IsZero():
			away = time.Now()
		case time.Since(away) > 2*time.Second:
			s.violations.add("deploy: no process answered for %s", time.Since(away).Round(time.Millisecond))
			return
		}
	}
}

// operations are what operators do, while processes die of it.
func operations(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	slot := s.anySlot()
	for _, act := range []struct{ path, body string }{
		{"/admin/consumers/ledger/pause", `{"reason":"the harness"}`},
		{"/admin/consumers/billing/backfill", `{"from":"beginning","reason":"the harness runs it again"}`},
	} {
		if err := s.operate(ctx, slot, "POST", act.path, act.body); err != nil {
			return 0, err
		}
	}
	id, err := one[uuid.UUID](ctx, s, "select event_id from faults.append($1, 'paused', '{}')", faultkit.Noted)
	if err != nil {
		return 0, err
	}
	slot.kill()
	if err := until(ctx, afterCrash, "the other consumer has the event", func() bool {
		n, err := one[int](ctx, s, "select count(*) from faults.effects where event_id = $1 and consumer = 'ledger-set'", id)
		return err == nil && n > 0
	}); err != nil {
		return 1, err
	}
	n, err := one[int](ctx, s, "select count(*) from faults.effects where event_id = $1 and consumer = 'ledger'", id)
	if err != nil {
		return 1, err
	}
	if n > 0 {
		s.violations.add("operator: a paused consumer went on")
	}
	if err := s.operate(ctx, slot, "POST", "/admin/consumers/ledger/resume", `{"reason":"the harness"}`); err != nil {
		return 1, err
	}
	for range 3 {
		if err := s.trouble(ctx, "permanent", 1, fmt.Sprintf("operator%d", s.rng.IntN(1<<30))); err != nil {
			return 1, err
		}
	}
	if err := until(ctx, afterCrash, "letters", func() bool {
		n, err := one[int](ctx, s, "select count(*) from discarded_jobs where state = 'dead' and key like 'operator%'")
		return err == nil && n > 0
	}); err != nil {
		return 1, err
	}
	_, _ = s.replayDead(ctx)
	s.anySlot().kill()
	return 2, s.resumes(ctx, "operator", afterCrash)
}
