package workers

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

const (
	// insertTopic is what River's producers listen on.
	insertTopic = "river_insert"
	// relisten is how soon a lost LISTEN connection is tried for again, and relistenTime how long one try may take.
	relisten     = 200 * time.Millisecond
	relistenTime = 2 * time.Second
)

// driver is River's, with a listener that comes back by itself and looks for jobs that stay cheap.
type driver struct {
	riverdriver.Driver[pgx.Tx]
	queues func() []string // those that are worked now
	db     querier
	looks  *looks
	begin  func(queue string, jobs int) time.Duration
	log    *slog.Logger
}

func newDriver(pool *pgxpool.Pool, queues func() []string, begin func(string, int) time.Duration, clock *clock, log *slog.Logger) *driver {
	return &driver{Driver: riverpgxv5.New(pool), queues: queues, db: pool, looks: newLooks(clock), begin: begin, log: log}
}

func (d *driver) GetExecutor() riverdriver.Executor {
	return &fetcher{Executor: d.Driver.GetExecutor(), db: d.db, looks: d.looks, begin: d.begin, dear: dearLook, times: dearTimes}
}

func (d *driver) GetListener(params *riverdriver.GetListenenerParams) riverdriver.Listener {
	return &listener{Listener: d.Driver.GetListener(params), driver: d}
}

// listener is connected again as soon as the database can be reached, and then has every queue look for what it was not told of. River
// waits for twice as long after each loss, up to a minute, however long ago the last one was; jobs then wait for the poll.
//
// As River does it, one goroutine at a time uses it.
type listener struct {
	riverdriver.Listener
	driver *driver

	connected atomic.Bool
	mu        sync.Mutex // of what follows; it is not held over what waits
	topics    []string
	missed    []*riverdriver.Notification
}

// Connect fails where nothing has been listened on yet, so that a database that is not there is seen at the start.
func (l *listener) Connect(ctx context.Context) error {
	if err := l.Listener.Connect(ctx); err != nil {
		return err
	}
	l.connected.Store(true)
	return nil
}

// Listen, Unlisten and Ping do not fail: what they find broken is mended by WaitForNotification.
func (l *listener) Listen(ctx context.Context, topic string) error {
	l.mu.Lock()
	l.topics = append(l.topics, topic)
	l.mu.Unlock()
	l.use(ctx, func() error { return l.Listener.Listen(ctx, topic) })
	return nil
}

func (l *listener) Unlisten(ctx context.Context, topic string) error {
	l.mu.Lock()
	l.topics = slices.DeleteFunc(l.topics, func(t string) bool { return t == topic })
	l.mu.Unlock()
	l.use(ctx, func() error { return l.Listener.Unlisten(ctx, topic) })
	return nil
}

func (l *listener) Ping(ctx context.Context) error {
	l.use(ctx, func() error { return l.Listener.Ping(ctx) })
	return nil
}

func (l *listener) Close(ctx context.Context) error {
	l.mu.Lock()
	l.topics, l.missed = nil, nil
	l.mu.Unlock()
	if !l.connected.Swap(false) {
		return nil
	}
	return l.Listener.Close(ctx)
}

// WaitForNotification returns an error when ctx has ended, and at no other time.
func (l *listener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		if n := l.told(); n != nil {
			return n, nil
		}
		if !l.connected.Load() {
			if !l.again(ctx) {
				return nil, ctx.Err()
			}
			continue
		}
		n, err := l.Listener.WaitForNotification(ctx)
		if err == nil || ctx.Err() != nil {
			return n, err
		}
		l.lost(ctx, err)
	}
}

// again connects and listens on everything anew, unless ctx ends before.
func (l *listener) again(ctx context.Context) bool {
	timer := time.NewTimer(relisten)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	l.mu.Lock()
	topics := slices.Clone(l.topics)
	l.mu.Unlock()
	// Not by ctx: River ends that to have a topic added, and what is half connected would be lost.
	trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), relistenTime)
	defer cancel()
	if l.Listener.Connect(trying) != nil {
		return true
	}
	for _, topic := range topics {
		if l.Listener.Listen(trying, topic) != nil {
			_ = l.Listener.Close(trying) // it is broken
			return true
		}
	}
	l.connected.Store(true)
	if slices.Contains(topics, insertTopic) {
		l.mu.Lock()
		l.missed = nil
		for _, queue := range l.driver.queues() {
			l.missed = append(l.missed, &riverdriver.Notification{Topic: insertTopic, Payload: fmt.Sprintf(`{"queue":%q}`, queue)})
		}
		l.mu.Unlock()
	}
	l.driver.log.Info("listener: listens again")
	return true
}

// told takes one of the notifications that nobody sent.
func (l *listener) told() *riverdriver.Notification {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.missed) == 0 {
		return nil
	}
	n := l.missed[0]
	l.missed = l.missed[1:]
	return n
}

// use does something with the connection, where there is one.
func (l *listener) use(ctx context.Context, do func() error) {
	if !l.connected.Load() {
		return
	}
	if err := do(); err != nil && ctx.Err() == nil {
		l.lost(ctx, err)
	}
}

func (l *listener) lost(ctx context.Context, err error) {
	l.connected.Store(false)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = l.Listener.Close(closing) // it is broken
	l.driver.log.Warn("listener: the connection is lost, and tried for again", "error", err)
}
