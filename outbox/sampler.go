package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

const (
	// sampleEvery is how often what is kept follows what happens. sampleAll is how often it does so when the relay knows of nothing that
	// happens, and how often the rest is looked at: the oldest events, and whether what is kept is true.
	sampleEvery = time.Second
	sampleAll   = 5 * time.Second
	// sampleTime bounds the statements of a sample.
	sampleTime = 20 * time.Second
	// sampleShare is the most that counting holds, letters and jobs may take of the time: what takes long is counted less often.
	sampleShare = 50
)

// sampler keeps, for as long as a relay leads, the numbers that operators and metrics read, so that none of them is counted when it is
// asked for. How far a consumer is behind is what came for it less what it has passed (cursors.passed): the relay knows the one, and the
// drains write the other. Nobody counts what is ahead of a cursor, but once for a new consumer, and where the numbers cannot be.
type sampler struct {
	*Engine
	token uuid.UUID
	tally *tally

	epoch   int
	known   map[string]*standing // by consumer; nil: to be learnt from the database
	behind  bool                 // some consumer has something to do: its cursors move, without a word to the relay
	allAt   time.Time
	turn    int // of the lanes, in looking whether what is kept is true
	failing bool

	countedAt   time.Time
	countTook   time.Duration
	held        map[string]held
	jobs        json.RawMessage
	quarantined int64
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(s.cfg.sampleEvery)
	defer tick.Stop()
	for {
		err := s.sample(ctx)
		if ctx.Err() != nil {
			return
		}
		// A consumer that is removed or renamed at this moment takes its row along (40001), or may have none (23503): the next sample knows.
		failing := err != nil && sqlState(err) != "40001" && sqlState(err) != "23503"
		if err != nil {
			s.known = nil // what the relay told of is lost, and is counted in the log
		}
		if failing && !s.failing {
			s.log.Warn("statistics: will try again", "error", err)
		}
		s.failing = failing
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sample brings what is kept up to date.
func (s *sampler) sample(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	// First what came, then who wants it: a subscription that is made in between is to what comes later.
	c := s.tally.take()
	if c.epoch != s.epoch {
		s.epoch, s.known = c.epoch, nil
	}
	all := s.known == nil || time.Since(s.allAt) >= sampleAll/sampleEvery*s.cfg.sampleEvery
	if !all && !s.behind && len(c.types) == 0 {
		return nil
	}
	var (
		consumers []outboxdb.StatsConsumersRow
		cursors   []outboxdb.StatsCursorsRow
	)
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("acquire a connection: %w", err)
	}
	// One snapshot for all of it: what is counted is then what was read, whatever is registered, removed or drained meanwhile.
	tx, err := pipelineOn(ctx, conn, "begin isolation level repeatable read", sampleTime, sampleTime, func(b *pgx.Batch) {
		b.Queue(outboxdb.EngineCommitsLater)
		queueRows(b, &consumers, s.schema.sql(outboxdb.StatsConsumers))
		queueRows(b, &cursors, s.schema.sql(outboxdb.StatsCursors))
	})
	if err != nil {
		return fmt.Errorf("read consumers and cursors: %w", err)
	}
	defer tx.end()
	if err := s.follow(ctx, tx, consumers, cursors, c); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	if all {
		if err := s.findOldest(ctx, tx); err != nil {
			return fmt.Errorf("look for the oldest events: %w", err)
		}
		if err := s.audit(ctx, tx); err != nil {
			return fmt.Errorf("count again: %w", err)
		}
		s.allAt = time.Now()
	}
	if time.Since(s.countedAt) >= max(sampleAll/sampleEvery*s.cfg.sampleEvery, sampleShare*s.countTook) {
		if err := s.countHeld(ctx, tx); err != nil {
			return fmt.Errorf("count holds, letters and jobs: %w", err)
		}
	}
	return s.write(ctx, tx, c.above)
}

// follow takes note of what came, and of how far the cursors are.
func (s *sampler) follow(ctx context.Context, tx pgx.Tx, consumers []outboxdb.StatsConsumersRow, cursors []outboxdb.StatsCursorsRow, c came) error {
	places := map[string]*[Lanes]cursorPlace{}
	for _, k := range cursors {
		if places[k.Consumer] == nil {
			places[k.Consumer] = &[Lanes]cursorPlace{}
		}
		places[k.Consumer][k.Lane] = cursorPlace{k.Pos, k.Passed, k.Run, k.ToPos, k.ResumePos}
	}
	known, until := map[string]*standing{}, time.Now().Add(countTime)
	s.behind = false
	for _, row := range consumers {
		st := s.known[row.Name]
		if st == nil {
			st = learn(row)
		}
		if places[row.Name] == nil {
			continue // it was registered since they were read
		}
		known[row.Name] = st
		st.paused, st.freeAt = row.Paused, row.FreeAt
		if err := s.came(ctx, tx, st, row, c); err != nil {
			return err
		}
		if !st.see(places[row.Name]) {
			s.log.Info("statistics: cursors are where they cannot be; what is ahead of them is counted", "consumer", row.Name)
		}
		if err := s.count(ctx, tx, st, until); err != nil {
			return err
		}
		st.measure()
		s.behind = s.behind || st.count != nil || st.put.Lag > 0
	}
	s.known = known
	return nil
}

// held is what is set aside of a consumer's events.
type held struct{ inFlight, keys, waiting, dead, letters int64 }

// countHeld counts what is counted as a whole.
func (s *sampler) countHeld(ctx context.Context, tx pgx.Tx) error {
	var (
		holds   []outboxdb.StatsHoldsRow
		waiting []outboxdb.StatsWaitingRow
		letters []outboxdb.StatsLettersRow
		jobs    []outboxdb.StatsJobsRow
	)
	began := time.Now()
	b := &pgx.Batch{}
	b.Queue(outboxdb.EngineLends) // whole tables are best read as they lie
	queueRows(b, &holds, s.schema.sql(outboxdb.StatsHolds))
	queueRows(b, &waiting, s.schema.sql(outboxdb.StatsWaiting))
	queueRows(b, &letters, s.schema.sql(outboxdb.StatsLetters))
	queueRows(b, &jobs, s.schema.sql(outboxdb.StatsJobs))
	b.Queue(s.schema.sql(outboxdb.StatsQuarantined)).QueryRow(func(row pgx.Row) error { return row.Scan(&s.quarantined) })
	b.Queue(outboxdb.EngineTakesBack)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	all := map[string]held{}
	for _, r := range holds {
		all[r.Consumer] = held{inFlight: r.InFlight, keys: r.HeldKeys, dead: r.Dead}
	}
	for _, r := range waiting {
		h := all[r.Consumer]
		h.waiting = r.Waiting
		all[r.Consumer] = h
	}
	for _, r := range letters {
		h := all[r.Consumer]
		h.letters = r.Letters
		all[r.Consumer] = h
	}
	var err error
	if s.jobs, err = json.Marshal(s.queues(jobs)); err != nil {
		return err
	}
	s.held, s.countedAt, s.countTook = all, time.Now(), time.Since(began)
	return nil
}

// queues are the jobs in the queues of relay and consumers. Whoever else has jobs in that table has queues that we know nothing of, and
// perhaps very many: they count as one.
func (s *sampler) queues(rows []outboxdb.StatsJobsRow) []JobCount {
	all, place := []JobCount{}, map[[2]string]int{}
	for _, r := range rows {
		queue := "other"
		for _, prefix := range []string{DrainQueue(""), DeliverQueue("")} {
			name, ours := strings.CutPrefix(r.Queue, prefix)
			if _, known := s.known[name]; ours && (known || r.Queue == RelayQueue) {
				queue = r.Queue
			}
		}
		k := [2]string{queue, r.State}
		if i, found := place[k]; found {
			all[i].Jobs += r.Jobs
			continue
		}
		place[k] = len(all)
		all = append(all, JobCount{queue, r.State, r.Jobs})
	}
	return all
}

// write keeps what has changed.
func (s *sampler) write(ctx context.Context, tx *pipelined, above int64) error {
	b := &pgx.Batch{}
	db := s.queued(b)
	var wrote []*standing
	for _, st := range s.known {
		h := s.held[st.name]
		st.put.InFlight, st.put.HeldKeys, st.put.Waiting, st.put.Dead, st.put.Letters = h.inFlight, h.keys, h.waiting, h.dead, h.letters
		st.put.Token = &s.token
		if st.measured && !reflect.DeepEqual(st.put, st.kept) {
			_ = s.q.ConsumerStatsPut(ctx, db, st.put)
			wrote = append(wrote, st)
		}
	}
	put := outboxdb.RelayStatsPutParams{Above: above, Quarantined: s.quarantined, Jobs: s.jobs, Token: &s.token}
	for _, st := range s.known {
		if since, some := st.aheadSince(); some && (put.AheadSince == nil || since.Before(*put.AheadSince)) {
			put.AheadSince, put.AheadConsumer = &since, st.name
		}
	}
	_ = s.q.RelayStatsPut(ctx, db, put)
	b.Queue("commit")
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	tx.commits()
	for _, st := range wrote {
		st.kept = st.put
	}
	return nil
}

// queueRows queues a query and puts its rows, once it is sent, into dst, field by field.
func queueRows[T any](b *pgx.Batch, dst *[]T, sql string) {
	b.Queue(sql).Query(func(rows pgx.Rows) (err error) {
		*dst, err = pgx.CollectRows(rows, pgx.RowToStructByPos[T])
		return err
	})
}
