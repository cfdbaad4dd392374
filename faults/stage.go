package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/faults/build"
	"github.com/pgoutbox/pgoutbox/faults/cluster"
	"github.com/pgoutbox/pgoutbox/faults/outside"
	"github.com/pgoutbox/pgoutbox/faults/proxy"
	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/faultkit"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
)

const (
	database   = "outbox"
	adminToken = "harness:of-faults-only"
	stripeKey  = "sk_test_of_faults_only"
	hookSecret = "whsec_of_faults_only"
	processes  = 3
)

// setting is what a stage is played in.
type setting string

const (
	alone     setting = "alone"     // one server
	pair      setting = "pair"      // a primary and a synchronous standby
	pairAsync setting = "pairasync" // a primary and an asynchronous standby
	pooled    setting = "pooled"    // one server, everything through PgBouncer
	diskData  setting = "diskdata"  // the data on a small file system
	diskWAL   setting = "diskwal"   // the log of the server on one
)

// stage is a whole installation under load: servers, processes, clients, and the judges outside of both.
type stage struct {
	*options
	setting setting
	dir     string
	rng     *rand.Rand

	server *cluster.Server // of alone, pooled and the disks
	pair   *cluster.Pair
	pooler *cluster.Pooler
	disk   *cluster.Disk

	dbs   []*proxy.Proxy // to the servers, or to the pooler
	apis  []*proxy.Proxy // to the processes, one each
	slots []*slot

	mails    *mailsink.Sink
	payments *outside.Payments
	outside  *outside.Ledger

	journal    *journal
	customers  *customers
	producers  *producers
	violations *violations
	direct     *pgxpool.Pool // past the proxies
	endLoad    context.CancelFunc

	mu      sync.Mutex
	faults  map[string]int
	slowest map[string]time.Duration // until work went on, by kind
	hits    map[string]int           // failpoints at which a process died
	ratios  map[string]float64       // the worst of what was measured
	refused int                      // answers of 503 while there was no database
	next    bool                     // processes are of the next build
	keep    bool                     // the servers' data is left where it is
	soaked  bool                     // the sizes of the tables are judged
	bank    *bank                    // where payments take their time; nil: none does
	began   time.Time

	crashing []uuid.UUID // events that kill
	control  string
	errands  sync.WaitGroup // what a fault does in the background
	// overlapping: there may be a fault beside the one that waits for work to go on.
	overlapping atomic.Bool
	closers     []func()
}

// startStage builds an installation, and starts its load when withLoad is set.
func startStage(ctx context.Context, o *options, where setting, number int, control string) (s *stage, err error) {
	s = &stage{
		options: o, setting: where, dir: filepath.Join(o.dir, fmt.Sprintf("%02d-%s", number, where)), control: control,
		rng: rand.New(&locked{source: rand.NewPCG(o.seed, 1+uint64(number))}), violations: &violations{},
		faults: map[string]int{}, slowest: map[string]time.Duration{}, hits: map[string]int{}, ratios: map[string]float64{},
		began: time.Now(),
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.MkdirAll(filepath.Join(s.dir, "crashes"), 0o755); err != nil {
		return s, err
	}
	if err := s.startServers(ctx); err != nil {
		return s, fmt.Errorf("servers: %w", err)
	}
	if err := s.startJudges(ctx); err != nil {
		return s, fmt.Errorf("judges: %w", err)
	}
	if s.direct, err = pgxpool.New(ctx, s.url(database)+"&pool_max_conns=8"); err != nil {
		return s, err
	}
	s.closers = append(s.closers, s.direct.Close)
	n := processes
	if !s.long && where != alone {
		n = 2
	}
	for i := range n {
		if err := s.addProcess(i); err != nil {
			return s, err
		}
	}
	for _, slot := range s.slots {
		if err := slot.awaitServe(ctx); err != nil {
			return s, fmt.Errorf("%w; it said: %s", err, lastOf(slot.logs))
		}
	}
	return s, nil
}

func lastOf(path string) string {
	all, _ := os.ReadFile(path)
	return string(all[max(0, len(all)-2000):])
}

func (s *stage) startJudges(ctx context.Context) (err error) {
	if s.mails, err = mailsink.Start(ctx, filepath.Join(s.dir, "mails"), slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	s.closes(func() error { return s.mails.Close(context.Background()) })
	if s.payments, err = outside.StartPayments(outside.PaymentsConfig{File: filepath.Join(s.dir, "charges"), SecretKey: stripeKey, Seed: s.seed}); err != nil {
		return err
	}
	s.closes(s.payments.Close)
	if s.outside, err = outside.StartLedger(outside.LedgerConfig{File: filepath.Join(s.dir, "outside"), Seed: s.seed}); err != nil {
		return err
	}
	s.closes(s.outside.Close)
	if s.journal, err = openJournal(s.journalPath()); err != nil {
		return err
	}
	return nil
}

func (s *stage) journalPath() string { return filepath.Join(s.dir, "journal") }

// addProcess adds a process and the proxy in front of it.
func (s *stage) addProcess(i int) error {
	front, err := proxy.Start(proxy.Options{Target: "127.0.0.1:1", Seed: s.seed + uint64(i)}) // it has no address yet
	if err != nil {
		return err
	}
	s.apis = append(s.apis, front)
	s.closes(front.Close)
	slot := newSlot(fmt.Sprintf("process%d", i), s.binary, s.dir, s.environment(), front.SetTarget)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots = append(s.slots, slot)
	return nil
}

// allSlots are the processes there are at present, for whoever does not hurt them.
func (s *stage) allSlots() []*slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.slots)
}

// environment is that of a process of the service.
func (s *stage) environment() map[string]string {
	env := map[string]string{
		// Each connection costs the server, and a process that starts opens many: these are enough on a small machine.
		"DATABASE_URL": fmt.Sprintf("%s&pool_max_conns=%d", s.serviceURL(), s.pool()), "OUTBOX_ADDR": "127.0.0.1:0", "OUTBOX_ADMIN_ADDR": "127.0.0.1:0",
		"OUTBOX_ADMIN_TOKENS": adminToken, "OUTBOX_RETRY_BASE": "200ms", "OUTBOX_RETRY_MAX": "2s", "OUTBOX_MAX_ATTEMPTS": "12",
		"SMTP_URL": s.mails.URL(), "OUTBOX_PAYMENTS": "stripe", "STRIPE_SECRET_KEY": stripeKey, "STRIPE_WEBHOOK_SECRET": "whsec_before," + hookSecret,
		"OUTBOX_RATE_LIMITS":  "off", // the customers come from one address, and are many
		faultkit.EnvStripeURL: s.payments.URL(), faultkit.EnvOutsideURL: s.outside.URL(),
		faultkit.EnvDir: filepath.Join(s.dir, "crashes"), faultkit.EnvControl: s.control,
		build.EnvClock: "0", failpoint.EnvEvery: "2s", "GOTRACEBACK": "all",
	}
	if s.setting == pooled {
		env["OUTBOX_POLL_ONLY"] = "true"
	}
	if s.next {
		env[faultkit.EnvNext] = "1"
	}
	return env
}

// startLoad sets clients to work until stopLoad.
func (s *stage) startLoad(ctx context.Context, clients, raw int, pause time.Duration) {
	ctx, s.endLoad = context.WithCancel(ctx)
	apis := make([]string, len(s.apis))
	for i, p := range s.apis {
		apis[i] = p.Addr()
	}
	s.customers = newCustomers(s.journal, func() []string { return apis }, s.seed, 300*time.Millisecond, s.violations)
	s.producers = &producers{journal: s.journal, url: s.serviceURL, seed: s.seed, pause: pause, violations: s.violations}
	s.customers.run(ctx, clients)
	s.producers.run(ctx, raw)
}

// stopLoad lets the clients bring to an end what they have begun.
func (s *stage) stopLoad() {
	if s.endLoad != nil {
		s.endLoad()
		s.customers.wait()
		s.producers.wait()
	}
}

// close ends everything, in the order in which one thing depends on another.
func (s *stage) close() {
	s.stopLoad()
	var ends sync.WaitGroup
	for _, slot := range s.slots {
		ends.Go(slot.close)
	}
	ends.Wait()
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	if s.journal != nil {
		_ = s.journal.close()
	}
}

// closes has something closed with the stage.
func (s *stage) closes(end func() error) {
	s.closers = append(s.closers, func() {
		if err := end(); err != nil {
			s.say("close: %v\n", err)
		}
	})
}

var errNoAnswer = errors.New("no answer")

// one asks the database, past the proxies.
func one[T any](ctx context.Context, s *stage, sql string, args ...any) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var v T
	rows, err := s.direct.Query(ctx, sql, args...)
	if err != nil {
		return v, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
}

// ratio keeps the worst of what was measured: the largest but for rates, of which it is the smallest.
func (s *stage) ratio(what string, v float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, ok := s.ratios[what]; !ok || strings.Contains(what, "rate") == (v < was) {
		s.ratios[what] = v
	}
}
