package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// The controls are systems that are wrong on purpose. A harness that finds nothing there would find nothing anywhere.
const (
	// naiveRelay moves what lies above the highest number it has seen, under no lock, as if numbers committed in order.
	naiveRelay = "naive-relay"
	// noDedupe has a consumer write its effect outside of the transaction that records the event as processed.
	noDedupe = "no-dedupe"
	// asyncStandby fails over to a standby that commits do not wait for. That is a way to run it, and what it costs is to be seen.
	asyncStandby = "async-standby"

	controlTime = 6 * time.Second
)

var controls = map[string]func(context.Context, *stage) error{
	naiveRelay: playNaiveRelay, noDedupe: playNoDedupe, asyncStandby: playAsyncStandby,
}

func runControl(ctx context.Context, o *options, control string) (*report, error) {
	began := time.Now()
	where := alone
	if control == asyncStandby {
		where = pairAsync
	}
	s, err := startStage(ctx, o, where, 0, control)
	if err != nil {
		return nil, err
	}
	defer s.close()
	play := controls[control]
	if err := play(ctx, s); err != nil {
		return nil, fmt.Errorf("control %s: %w", control, err)
	}
	s.stopLoad()
	conn, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }()
	v, err := prove(ctx, conn, s.journalPath(), false)
	if err != nil {
		return nil, err
	}
	r := newReport(o.seed)
	r.add(s, v, time.Since(began))
	return r, nil
}

// playNoDedupe kills processes where the effect is there, and the note that it is, is not.
func playNoDedupe(ctx context.Context, s *stage) error {
	// The others are at rest, so that it is this one's drains that are hit.
	if _, err := s.direct.Exec(ctx, "update consumers set paused_at = clock_timestamp() where name <> 'ledger'"); err != nil {
		return err
	}
	s.startLoad(ctx, 0, 3, 50*time.Millisecond)
	for end := time.Now().Add(controlTime); time.Now().Before(end); {
		slot := s.anySlot()
		if err := slot.awaitServe(ctx); err != nil {
			return err
		}
		died, _ := slot.present()
		if err := slot.arm(ctx, 1, "kill", failpoint.DrainCommitBefore); err != nil {
			continue
		}
		select {
		case <-died:
			s.faults[noDedupe]++
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
	s.stopLoad()
	if _, err := s.direct.Exec(ctx, "update consumers set paused_at = null"); err != nil {
		return err
	}
	return s.settle(ctx)
}

// playNaiveRelay stands in for the service, whose processes are at rest.
func playNaiveRelay(ctx context.Context, s *stage) error {
	for _, slot := range s.slots {
		slot.rest()
	}
	// Nobody consumes: it is the log that is judged. Some transactions take their time between number and commit, as any may: what goes
	// by numbers overtakes them.
	if _, err := s.direct.Exec(ctx, `truncate consumer_subscriptions; select outbox_make_event_partitions(1000000);
		create function faults.late() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05); return null; end $$;
		create constraint trigger faults_late after insert on outbox deferrable initially deferred
			for each row when (new.seq % 50 = 0) execute function faults.late()`); err != nil {
		return err
	}
	relaying, end := context.WithCancel(ctx)
	var relay sync.WaitGroup
	var failed error
	relay.Go(func() { failed = relayNaively(relaying, s) })
	s.startLoad(ctx, 0, 6, time.Millisecond)
	sleep(ctx, controlTime)
	s.stopLoad()
	s.faults[naiveRelay]++
	err := until(ctx, 20*time.Second, "the naive relay has moved all it sees", func() bool {
		left, err := one[bool](ctx, s, "select exists (select from outbox where seq > coalesce((select value::bigint from faults.switches where name = 'naive'), 0))")
		return err == nil && !left
	})
	end()
	relay.Wait()
	return errors.Join(err, failed)
}

// relayNaively goes by a cursor over the outbox's numbers, and clears what lies behind it.
func relayNaively(ctx context.Context, s *stage) error {
	for sleep(ctx, 5*time.Millisecond) {
		_, err := s.direct.Exec(context.WithoutCancel(ctx), `do $$
			declare
				cursor bigint := coalesce((select value::bigint from faults.switches where name = 'naive'), 0);
				last bigint := (select max(seq) from outbox where seq > cursor);
			begin
				if last is null then return; end if;
				insert into events (pos, seq, id, type, key, lane, data, correlation_id, causation_id, traceparent, source, schema_version, occurred_at, relayed_at)
					select (select coalesce(max(pos), 0) from events) + row_number() over (order by seq), seq, id, type, key, lane, data, correlation_id, causation_id,
						traceparent, source, schema_version, occurred_at, clock_timestamp()
					from outbox where seq > cursor and seq <= last;
				delete from outbox where seq <= last;
				insert into faults.switches values ('naive', last::text) on conflict (name) do update set value = excluded.value;
			end $$`)
		if err != nil {
			return fmt.Errorf("the naive relay: %w", err)
		}
	}
	return nil
}

// playAsyncStandby fails over while the standby lags.
func playAsyncStandby(ctx context.Context, s *stage) error {
	s.startLoad(ctx, 0, 3, 5*time.Millisecond)
	if err := until(ctx, 20*time.Second, "the load", func() bool { return s.journal.acknowledged() > 100 }); err != nil {
		return err
	}
	standby, err := pgx.Connect(ctx, s.pair.Standby().URL(database))
	if err != nil {
		return err
	}
	// It stops to receive, as one does whose network is away, and what the primary writes from now on is on the primary alone.
	for _, sql := range []string{"alter system set primary_conninfo = ''", "select pg_reload_conf()"} {
		if _, err := standby.Exec(ctx, sql); err != nil {
			return errors.Join(err, standby.Close(ctx))
		}
	}
	if err := standby.Close(ctx); err != nil {
		return err
	}
	from := s.journal.acknowledged()
	if err := until(ctx, 20*time.Second, "the load", func() bool { return s.journal.acknowledged() > from+500 }); err != nil {
		return err
	}
	if _, err := s.pair.Failover(ctx); err != nil {
		return err
	}
	s.faults[asyncStandby]++
	s.direct.Reset()
	if _, err := s.probe(ctx, time.Minute); err != nil {
		return err
	}
	s.stopLoad()
	return s.settle(ctx)
}
