package handlers

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/internal/watch"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// mostWait is the longest that Prefer: wait is followed.
	mostWait = 30 * time.Second
	// firstLook and lastLook bound the time between two looks for states that change without their events, which doubles.
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

var waitForm = regexp.MustCompile(`^(?i:wait)\s*=\s*(?:"([0-9]+)"|([0-9]+))\s*(?:;.*)?$`)

// preferredWait reads Prefer: wait=N (RFC 7240), clamped to 30. A preference that is malformed is one that is not there;
// of several the first counts.
func preferredWait(header http.Header) (wait time.Duration, asked bool) {
	for _, preference := range strings.Split(strings.Join(header.Values("Prefer"), ","), ",") {
		match := waitForm.FindStringSubmatch(strings.TrimSpace(preference))
		if match == nil {
			continue
		}
		seconds, err := strconv.Atoi(match[1] + match[2])
		if err != nil || seconds > int(mostWait/time.Second) {
			return mostWait, true // more digits than a number has
		}
		return time.Duration(seconds) * time.Second, true
	}
	return 0, false
}

// states are waits for rows to come to their end, all in one query a second.
type states = watch.Group[struct{}]

// newStates makes them of a query that says which of the ids have.
func newStates(pool *pgxpool.Pool, ended func(ctx context.Context, db shopdb.DBTX, ids []uuid.UUID) ([]uuid.UUID, error)) *states {
	return &states{
		Look: func(ctx context.Context, asked []*watch.Asked[struct{}]) error {
			conn, err := pool.Acquire(ctx)
			if err != nil {
				return err
			}
			defer conn.Release()
			// A cancelled query costs its connection: it goes on when the last client leaves.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
			defer cancel()
			ids := make([]uuid.UUID, len(asked))
			for i, a := range asked {
				ids[i] = a.ID
			}
			found, err := ended(ctx, conn, ids)
			if err != nil {
				return err
			}
			has := make(map[uuid.UUID]bool, len(found))
			for _, id := range found {
				has[id] = true
			}
			for _, a := range asked {
				a.Done = has[a.ID]
			}
			return nil
		},
		Passing: func(error) bool { return true }, // the request's own last look says what is wrong
		First:   firstLook, Last: lastLook,
	}
}

// awaited is what a client may wait for.
type awaited[T any] struct {
	// load reads it from the source of truth, and settled says whether that is its end.
	load    func() (T, error)
	settled func(T) bool
	// event brings it there, once consumer has processed it. That is how the wait usually ends, and at once.
	event    func(T) uuid.UUID
	consumer string
	// Without the event it may end as well: by a provider's webhook while a delivery waits for its next attempt, or, when the
	// event is dead, by a replay of it. So the states are asked about id, too.
	states *states
	id     uuid.UUID
}

// await loads something until it is settled, the wait that the client prefers is over, the client is gone or the server
// stops; it returns what it loaded last. No request asks again and again: all of them share the looks of outbox.Wait and of the
// states, and hold no connection between. An event that will not be processed does not cut the wait short, or clients
// that ask until it is settled would ask without a pause.
func await[T any](c echo.Context, pool *pgxpool.Pool, w awaited[T]) (T, error) {
	wait, asked := preferredWait(c.Request().Header)
	end := time.Now().Add(wait)
	value, err := w.load()
	if err != nil || !asked {
		return value, err
	}
	if !w.settled(value) && wait > 0 {
		if value, err = w.wait(c.Request().Context(), pool, end, value); err != nil {
			return value, err
		}
	}
	c.Response().Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
	return value, nil
}

func (w awaited[T]) wait(request context.Context, pool *pgxpool.Pool, end time.Time, value T) (T, error) {
	ctx, cancel := context.WithDeadline(request, end)
	var waits sync.WaitGroup
	defer waits.Wait()
	defer cancel()
	processed, changed := make(chan error, 1), make(chan struct{})
	waits.Go(func() { processed <- outbox.Wait(ctx, pool, w.event(value), w.consumer) })
	waits.Go(func() {
		defer close(changed)
		_ = w.states.Wait(ctx, w.id, "") // nil, or the time is up
	})
	for {
		last := false
		select {
		case err := <-processed:
			if err != nil {
				continue // it will not be, or the time is up: the others tell
			}
		case <-changed:
			last = true
		case <-stopping(ctx):
			last = true // a last look, and the answer
		case <-ctx.Done():
			last = true // or the client is gone, for whom nothing is loaded any more
		}
		value, err := w.load()
		if err != nil || last || w.settled(value) {
			return value, err
		}
	}
}
