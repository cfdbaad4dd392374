package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// What a soak is made of. Some faults take the server or the network away, some hurt processes and clients, and one of each at a
// time goes together. Those that count processes, or what these do, have the stage for themselves.
var (
	soakOfServer  = []string{"postgres-kill", "postgres-immediate", "postgres-restart", "postgres-hang", "black-hole", "cut", "listen"}
	soakOfClients = []string{"failpoint", "failpoint", "kill", "kill", "commit", "conflicts", "poison", "tenfold"}
	soakByItself  = []string{"zombie", "crash-loop", "leader", "clock", "operator"}
)

// Bounds of a soak.
const (
	memoryGrowth = 1.5 // of the largest process, the last quarter of the time to the first
	sizeBound    = 2.0 // of tables and indexes, to what they take when written anew
	sizeLeast    = 16 << 20
)

// soak hurts at random, two ways at once, for a long time. Bounds do not hold for one fault in the middle of another; at the end
// everything is healed and has to come right within its bound.
func soak(ctx context.Context, s *stage, d time.Duration) (int, error) {
	if !s.long {
		d = s.lasts
	}
	s.overlapping.Store(true)
	var faults atomic.Int64
	var turn sync.RWMutex // held for writing by those that have the stage for themselves
	end := time.Now().Add(d)
	soaking, stop := context.WithDeadline(ctx, end)
	defer stop()
	var work sync.WaitGroup
	for i, names := range [][]string{soakOfServer, soakOfClients} {
		rng := rand.New(rand.NewPCG(s.seed, 500+uint64(i)))
		work.Go(func() {
			for soaking.Err() == nil {
				name, lock, unlock := names[rng.IntN(len(names))], turn.RLock, turn.RUnlock
				if rng.IntN(15) == 0 {
					name, lock, unlock = soakByItself[rng.IntN(len(soakByItself))], turn.Lock, turn.Unlock
				}
				k := s.kinds[slices.IndexFunc(s.kinds, func(k kind) bool { return k.name == name })]
				lock()
				began := time.Now()
				n, err := k.do(ctx, s, 2*time.Second+time.Duration(rng.IntN(6))*time.Second)
				unlock()
				faults.Add(int64(n))
				// What is late here may be for what goes on beside it: it is said, and no violation.
				said := ""
				if err != nil {
					said = ": " + err.Error()
				}
				s.say("%7.1fs    soak: %-16s %4d faults, %s%s\n", time.Since(s.began).Seconds(), name, n, time.Since(began).Round(100*time.Millisecond), said)
				sleep(soaking, time.Duration(rng.IntN(3000))*time.Millisecond)
			}
		})
	}
	memory := s.watchMemory(soaking, d)
	work.Wait()
	s.overlapping.Store(false)
	if err := s.heal(ctx); err != nil {
		return int(faults.Load()), fmt.Errorf("heal: %w", err)
	}
	early, late := memory()
	s.ratio("soak, MiB of the largest process in the last quarter", float64(late)/(1<<20))
	s.ratio("soak, the same to the first quarter", float64(late)/float64(early))
	if float64(late) > memoryGrowth*float64(early) {
		s.violations.add("soak: the largest process had %d MiB in the first quarter and %d in the last", early>>20, late>>20)
	}
	return int(faults.Load()), s.resumes(ctx, "soak", afterCrash)
}

// watchMemory samples the memory of the processes until ctx ends; what it returns waits for that, and has the largest of the first
// and of the last quarter.
func (s *stage) watchMemory(ctx context.Context, d time.Duration) func() (early, late int64) {
	began, ended := time.Now(), make(chan struct{})
	var first, last int64
	go func() {
		defer close(ended)
		for sleep(ctx, time.Second) {
			for _, slot := range s.allSlots() {
				at, m := time.Since(began), slot.memory()
				switch {
				case at < d/4:
					first = max(first, m)
				case at > 3*d/4:
					last = max(last, m)
				}
			}
		}
	}()
	return func() (int64, int64) {
		<-ended
		return first, last
	}
}

// heal takes back whatever a fault may have left when it was itself disturbed.
func (s *stage) heal(ctx context.Context) error {
	for _, p := range s.dbs {
		p.BlackHole(false)
		p.CutInside(0)
		p.CutAfterCommit(0)
		p.SwallowNotifications(false)
	}
	for _, p := range s.apis {
		p.BlackHole(false)
		p.CutAnswers(0)
	}
	_ = s.server.Wake() // where it does not hang, there is nothing to wake
	if !s.server.Running() {
		if err := s.server.Restart(ctx); err != nil {
			return err
		}
	}
	s.direct.Reset()
	if _, err := s.endCrashes(); err != nil {
		return err
	}
	if err := s.exec(ctx, "drop trigger if exists faults_tenfold on river_job"); err != nil {
		return err
	}
	if err := s.exec(ctx, "update consumers set paused_at = null where paused_at is not null"); err != nil {
		return err
	}
	return s.endQuarantine(ctx)
}

// judgeSizes writes every table anew and compares what they and their indexes took with what they take then.
func (s *stage) judgeSizes(ctx context.Context, conn *pgx.Conn) error {
	before, err := sizes(ctx, conn)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "vacuum full"); err != nil {
		return fmt.Errorf("write the tables anew: %w", err)
	}
	after, err := sizes(ctx, conn)
	if err != nil {
		return err
	}
	tables := slices.SortedFunc(maps.Keys(before), func(a, b string) int { return cmp.Compare(before[b]-after[b], before[a]-after[a]) })
	for _, table := range tables[:min(8, len(tables))] {
		s.say("soak: %-20s %8.1f MiB, %8.1f written anew\n", table, float64(before[table])/(1<<20), float64(after[table])/(1<<20))
	}
	var was, is int64
	for table, size := range before {
		was, is = was+size, is+after[table]
		if ratio := float64(size) / float64(max(after[table], 1)); size > sizeLeast && ratio > sizeBound {
			s.violations.add("soak: %s takes %d MiB, and %d when it is written anew", table, size>>20, after[table]>>20)
		}
	}
	s.ratio("soak, MiB of all tables and indexes", float64(was)/(1<<20))
	s.ratio("soak, the same to their size when written anew", float64(was)/float64(is))
	if float64(was) > sizeBound*float64(is) {
		s.violations.add("soak: tables and indexes take %d MiB, and %d when they are written anew", was>>20, is>>20)
	}
	return nil
}

// sizes are those of the service's tables, with their indexes, in bytes.
func sizes(ctx context.Context, conn *pgx.Conn) (map[string]int64, error) {
	rows, err := conn.Query(ctx, `select relname::text, pg_total_relation_size(c.oid) from pg_class c
		where relkind = 'r' and relnamespace = 'public'::regnamespace`)
	if err != nil {
		return nil, fmt.Errorf("sizes of the tables: %w", err)
	}
	out := map[string]int64{}
	var table string
	var size int64
	_, err = pgx.ForEachRow(rows, []any{&table, &size}, func() error {
		out[table] = size
		return nil
	})
	return out, err
}

// locked is a source that several faults draw from at once.
type locked struct {
	mu     sync.Mutex
	source rand.Source
}

func (l *locked) Uint64() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source.Uint64()
}
