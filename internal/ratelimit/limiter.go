package ratelimit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

const (
	// lockTimeout is how long a check waits for others of the same address or account: each holds its row for one round trip.
	lockTimeout      = "1s"
	statementTimeout = "2s"
	// remembered is how many addresses and accounts a process knows to be refused: about a megabyte.
	remembered = 10_000
	// looks is how many of those are looked at for one that may go.
	looks = 16
)

// Limiter lets requests through as far as the limits allow, by the generic cell rate algorithm. The count is in the database; of those that
// were refused the process remembers until when, so that a flood of them costs the database nothing. It is safe for concurrent use.
type Limiter struct {
	limits Limits

	mu      sync.Mutex
	refused map[id]time.Time // until when
}

// id is a limit and what it is of. Each part of it comes after its length, so that no two give the same.
type id [sha256.Size]byte

func idOf(of Of, subject string) id {
	var b []byte
	for _, part := range []string{of.Route, of.Kind, subject} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}

// New returns a limiter with the limits.
func New(limits Limits) *Limiter { return &Limiter{limits: limits, refused: map[id]time.Time{}} }

// Known reports what is known without the database: a request that is not limited (0), or for how long one of this subject will be refused.
// Where nothing is, Take has to be asked.
func (l *Limiter) Known(of Of, subject string) (wait time.Duration, known bool) {
	if _, limited := l.limits[of]; !limited {
		return 0, true
	}
	key := idOf(of, subject)
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.refused[key]
	if !ok {
		return 0, false
	}
	if wait = time.Until(until); wait > 0 {
		return wait, true
	}
	delete(l.refused, key)
	return 0, false
}

// Take counts a request, in a transaction of its own on the connection, which must not be in one: 0 lets it through; otherwise it is not
// counted, and will be refused again for as long as it says. After an error nobody knows whether it was counted.
func (l *Limiter) Take(ctx context.Context, conn *pgx.Conn, of Of, subject string) (wait time.Duration, err error) {
	limit, limited := l.limits[of]
	if !limited {
		return 0, nil
	}
	key := idOf(of, subject)
	step, slack := limit.step().Seconds(), limit.slack().Seconds()
	var taken int64
	var seconds float64
	b := &pgx.Batch{}
	b.Queue("begin isolation level read committed")
	b.Queue("select set_config('lock_timeout', $1::text, true), set_config('statement_timeout', $2::text, true)", lockTimeout, statementTimeout)
	b.Queue(shopdb.RateLimitTake, key[:], step, slack).Exec(func(tag pgconn.CommandTag) error {
		taken = tag.RowsAffected()
		return nil
	})
	b.Queue(shopdb.RateLimitWait, slack, key[:]).QueryRow(func(row pgx.Row) error {
		if err := row.Scan(&seconds); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil // purged in between: it has just become due
	})
	b.Queue("commit")
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		if !conn.IsClosed() {
			_, _ = conn.Exec(ctx, "rollback") // where it fails, the pool throws the connection away
		}
		return 0, fmt.Errorf("count a request: %w", err)
	}
	if taken > 0 {
		return 0, nil
	}
	wait = max(time.Duration(seconds*float64(time.Second)), time.Millisecond)
	l.remember(key, wait)
	return wait, nil
}

// remember takes note of a refusal. Where there is no room it forgets one that is over or, failing that, any: that one asks again.
func (l *Limiter) remember(key id, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.refused[key]; !known && len(l.refused) >= remembered {
		n := 0
		for other, until := range l.refused {
			if n++; n == looks || time.Until(until) <= 0 {
				delete(l.refused, other)
				break
			}
		}
	}
	l.refused[key] = time.Now().Add(wait)
}
