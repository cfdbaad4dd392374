package outbox_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// statsRig is a rig whose relay keeps statistics 50 times a second, of which it looks at all ten times, and what it logs.
func statsRig(t *testing.T, consumers func(*outbox.Registry)) (*rig, *logged) {
	t.Helper()
	reg, said := outbox.NewRegistry(), &logged{}
	consumers(reg)
	r := newRigOn(t, testdb.Pool(t), reg, outbox.SampleEvery(outbox.Config{Logger: slog.New(slog.NewTextHandler(said, nil))}, 20*time.Millisecond))
	r.exec(`create table if not exists broken (n int)`)
	return r, said
}

// logged is a log that may be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func fallible(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
	if err := brokenNow(ctx, tx, e); err != nil {
		return err
	}
	return effect(ctx, tx, e)
}

// keptIsTrue waits until what is kept of each consumer is what there is, counted event by event.
func (r *rig) keptIsTrue() {
	r.t.Helper()
	q := outboxdb.New()
	var said string
	require.Eventually(r.t, func() bool {
		stats, err := r.op.Stats(r.t.Context())
		require.NoError(r.t, err)
		for _, c := range stats.Consumers {
			lag, err := q.ConsumerLag(r.t.Context(), r.pool, c.Name)
			require.NoError(r.t, err)
			holds, err := q.ConsumerHolds(r.t.Context(), r.pool, c.Name)
			require.NoError(r.t, err)
			kept := fmt.Sprint(c.Counted, c.Lag, c.InFlight, c.HeldKeys, c.Waiting, c.Dead)
			true := fmt.Sprint(true, lag.Events, holds.InFlight, holds.HeldKeys, holds.Waiting, holds.Dead)
			if kept != true {
				said = fmt.Sprintf("%s: %s is kept, and %s is true", c.Name, kept, true)
				return false
			}
			if d := c.OldestAge - lag.OldestSeconds; lag.Events > 0 && (d > 1 || d < -1) || lag.Events == 0 && c.OldestAge != 0 {
				said = fmt.Sprintf("%s: the oldest of %d is kept as %f s old, and is %f", c.Name, lag.Events, c.OldestAge, lag.OldestSeconds)
				return false
			}
		}
		return len(stats.Consumers) > 0
	}, 20*time.Second, 5*time.Millisecond, &said)
}

// Whatever happens, and in whatever order, the numbers that the relay keeps come to be those that there are.
func TestKeptStatisticsAreTrue(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			draw := rand.New(rand.NewPCG(seed, 7))
			consumers := func(reg *outbox.Registry) {
				outbox.Handle(reg, "all", fallible, outbox.On("*"))
				outbox.Handle(reg, "notes", fallible, outbox.On("note.*"), outbox.On("memo.taken"))
				outbox.Handle(reg, "rare", fallible, outbox.On("rare.*"))
			}
			r, said := statsRig(t, consumers)
			stop := r.startRelay()
			n := 0
			appendSome := func() {
				for range 1 + draw.IntN(60) {
					n++
					kind := []string{"note.taken", "note.lost", "memo.taken", "other.thing", "rare.seen"}[min(draw.IntN(9), 4)]
					r.appendEvent(outbox.Event{Type: kind, Key: fmt.Sprint("k", draw.IntN(12)), Data: note{n}})
				}
			}
			for range 25 {
				switch draw.IntN(10) {
				case 0, 1, 2:
					appendSome()
				case 3:
					if lanes := r.lanesWithWork(); len(lanes) > 0 {
						_, err := r.Drain(t.Context(), lanes[draw.IntN(len(lanes))], 0, time.Minute)
						require.NoError(t, err)
					}
				case 4:
					r.drainAll()
				case 5: // some of what comes next is held, or dies at once
					r.exec(`insert into broken select $1::int + i from generate_series(1, 30, 7) i`, n)
					if draw.IntN(2) == 0 {
						r.exec(`insert into broken select n from broken`)
					}
				case 6:
					r.exec(`delete from broken`)
					r.deliverAll()
				case 7: // another relay takes the lead
					require.NoError(t, stop())
					appendSome()
					stop = r.startRelay()
				case 8:
					b := outbox.Backfill{From: outbox.Beginning, Until: time.Now().Add(-time.Duration(draw.IntN(3)) * 10 * time.Second)}
					s, err := r.op.Backfill(t.Context(), "notes", b, anna)
					if err == nil && draw.IntN(2) == 0 {
						r.drainAll()
						_, _ = r.op.StopBackfill(t.Context(), s.ID, anna)
					}
				case 9: // an operator pauses a consumer, or lets it go on
					by := r.op.Pause
					if draw.IntN(2) == 0 {
						by = r.op.Resume
					}
					require.NoError(t, by(t.Context(), "notes", anna))
				}
				if draw.IntN(2) == 0 {
					r.until(`select not exists (select from outbox)`)
					r.keptIsTrue()
				}
			}
			r.until(`select not exists (select from outbox)`)
			r.keptIsTrue()
			require.NoError(t, stop())
			require.NotContains(t, said.String(), "statistics:", "nothing had to be corrected")
		})
	}
}

// Consumers come, go, are renamed and change what they want while a relay keeps their numbers.
func TestKeptStatisticsFollowRegistrations(t *testing.T) {
	t.Parallel()
	r, said := statsRig(t, func(reg *outbox.Registry) {
		outbox.Handle(reg, "first", fallible, outbox.On("note.*"), outbox.On("memo.*"))
	})
	stop := r.startRelay()
	appendAll := func(ns ...int) {
		for _, n := range ns {
			for _, kind := range []string{"note.taken", "memo.taken", "other.thing"} {
				r.appendEvent(outbox.Event{Type: kind, Key: fmt.Sprint("k", n), Data: note{n}})
			}
		}
		r.until(`select not exists (select from outbox)`)
	}
	register := func(consumers func(*outbox.Registry)) {
		reg := outbox.NewRegistry()
		consumers(reg)
		_, err := outbox.NewEngine(r.pool, reg, r.jobs, outbox.Config{}).Register(t.Context())
		require.NoError(t, err)
	}
	appendAll(1, 2, 3, 4, 5)
	r.keptIsTrue()
	register(func(reg *outbox.Registry) {
		outbox.Handle(reg, "first", fallible, outbox.On("note.*"), outbox.On("memo.*"), outbox.On("other.*"))
		outbox.Handle(reg, "second", fallible, outbox.On("*"), outbox.StartFrom(outbox.Beginning))
		outbox.Handle(reg, "third", fallible, outbox.On("*"))
	})
	appendAll(6, 7)
	r.keptIsTrue()
	r.holds(`select lag = 16 from consumer_stats where consumer = 'first'`)
	r.holds(`select lag = 21 from consumer_stats where consumer = 'second'`)
	r.holds(`select lag = 6 from consumer_stats where consumer = 'third'`)

	require.NoError(t, r.op.Unsubscribe(t.Context(), "first", "memo.*", anna))
	register(func(reg *outbox.Registry) {
		outbox.Handle(reg, "deuxieme", fallible, outbox.On("*"), outbox.Formerly("second"))
	})
	forced := anna
	forced.Force = true
	_, err := r.op.Remove(t.Context(), "third", forced)
	require.NoError(t, err)
	appendAll(8)
	r.keptIsTrue()
	r.holds(`select array_agg(consumer || lag order by consumer) = '{deuxieme24,first11}' from consumer_stats`)
	require.NoError(t, stop())
	require.NotContains(t, said.String(), "statistics:")
}

// Cursors that were put back by hand, and drains that do not know of what is kept, are found and made good.
func TestKeptStatisticsAreCorrected(t *testing.T) {
	t.Parallel()
	r, said := statsRig(t, func(reg *outbox.Registry) { outbox.Handle(reg, "c", fallible, outbox.On("note.*")) })
	for n := range 50 {
		r.append(fmt.Sprint("k", n), n)
	}
	stop := r.startRelay()
	r.until(`select not exists (select from outbox)`)
	r.drainAll()
	r.keptIsTrue()
	r.exec(`update cursors set pos = 0`)
	r.keptIsTrue()
	require.Contains(t, said.String(), "cursors are where they cannot be")
	r.exec(`update cursors set passed = passed - 7 where lane = 3`)
	require.Eventually(t, func() bool { return strings.Contains(said.String(), "a lane's lag is corrected") }, 20*time.Second, 5*time.Millisecond)
	r.keptIsTrue()
	require.NoError(t, stop())
}

// With much to do, the numbers of operators are those that are kept, and not counted; with little, they are of this moment.
func TestConsumersWithMuchToDo(t *testing.T) {
	t.Parallel()
	r, _ := statsRig(t, func(reg *outbox.Registry) { outbox.Handle(reg, "c", fallible, outbox.On("note.*")) })
	lag := func() int64 {
		all, err := r.op.Consumers(t.Context())
		require.NoError(t, err)
		return all[0].Lag
	}
	r.append("k", 1)
	stop := r.startRelay()
	r.until(`select not exists (select from outbox)`)
	r.keptIsTrue()
	require.NoError(t, stop())
	r.exec(`update consumer_stats set lag = 5`)
	require.EqualValues(t, 1, lag())
	r.exec(`select outbox_append('note.taken', 'k', '{}') from generate_series(1, 300)`)
	r.relay()
	r.exec(`update consumer_stats set lag = 5`)
	require.EqualValues(t, 5, lag())
	r.exec(`delete from consumer_stats`)
	require.EqualValues(t, 301, lag(), "no relay has kept anything")
}
