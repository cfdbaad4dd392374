package main

import (
	"context"
	"slices"
	"time"
)

// Bounds of invariant 6.
const (
	afterCrash    = 45 * time.Second
	afterPostgres = 5 * time.Second
	afterLeader   = 30 * time.Second
)

// company is with whom a kind shares a stage of its setting.
type company int

const (
	together company = iota
	// patient kinds mostly wait for something. In the short form they have a stage of their own, beside the others.
	patient
	// lengthy kinds take as long as all of those. In the short form they have one, too.
	lengthy
	// prompt kinds are to be over within seconds, which a busy machine cannot show. In the short form they have a stage of their own,
	// which comes when all others have ended.
	prompt
	// single kinds have one each, and are not in the short form.
	single
)

// kind is a way to hurt the service. do hurts it, heals it, and returns when work goes on; it returns how many faults that was.
type kind struct {
	name string
	// what is hurt, and what must hold all the same, for the list.
	doc string
	in  setting
	// long and short are how long the hurt lasts, in the long form at most and in the short form.
	long, short time.Duration
	// weight is how often the kind is drawn in the long form, beside the first round, in which every kind has its turn.
	weight int
	stage  company
	do     func(ctx context.Context, s *stage, d time.Duration) (faults int, err error)
}

// kinds are all there are. The order is that of the short form.
var kinds = []kind{
	{"failpoint", "processes are killed at every commit boundary: work goes on within 45 s", alone, 0, 0, 12, lengthy, killAtFailpoints},
	{"kill", "a random process is killed: work goes on within 45 s", alone, 0, 0, 6, together, kill},
	{"money", "the payment provider refuses, hangs and loses requests and answers, its results come late, twice or first, and processes die: one charge for each paid order, none else", alone, 0, 0, 0, together, money},
	{"zombie", "relay, drain and deliver are stopped past their rescue, and go on: one effect, in order, nobody is blocked", alone, 30 * time.Second, 15 * time.Second, 2, patient, zombies},
	{"crash-loop", "an event kills whatever process runs it, again and again: it is escalated unrun, its lane goes on", alone, 0, 0, 1, patient, crashLoop},
	{"leader", "eight processes, the leader is killed again and again: another leads within 30 s", alone, 0, 0, 1, patient, killLeaders},
	{"clock", "a process has its clock an hour or eight days off: nothing is cleaned or rescued early, nothing waits for its time", alone, 20 * time.Second, 2 * time.Second, 2, patient, wrongClock},
	{"cut", "connections are cut, also in the middle of a pipeline", alone, 3 * time.Second, 2 * time.Second, 8, together, connectionsCut},
	{"commit", "connections are cut when COMMIT was sent, and HTTP answers are lost: the same key gets the first answer", alone, 3 * time.Second, 3 * time.Second, 8, together, commitsUnknown},
	{"black-hole", "the network swallows everything: waits are bounded", alone, 20 * time.Second, 6 * time.Second, 2, together, blackHole},
	{"listen", "LISTEN connections are dropped, notifications are swallowed: polling carries on", alone, 10 * time.Second, 3 * time.Second, 3, together, listeners},
	{"conflicts", "deadlocks, serialisation failures, lock and statement timeouts: the whole transaction is tried again", alone, 20 * time.Second, 7 * time.Second, 3, together, conflicts},
	{"tenfold", "every wake-up and every job is delivered ten times: nine are no-ops", alone, 20 * time.Second, 5 * time.Second, 3, together, tenfold},
	{"snapshot", "a long transaction and an idle one with a snapshot: nothing stalls", alone, 10 * time.Minute, 4 * time.Second, 0, together, longTransactions},
	{"deploy", "old and new builds together, with a new event, a new consumer and a new migration: no downtime, nothing dead", alone, 0, 0, 1, together, rollingDeploy},
	{"operator", "letters are replayed while processes die at every step of it, consumers are paused, a backfill runs", alone, 0, 0, 2, together, operations},
	{"poison", "payloads that cannot be read, panics and handlers that never return: only their own keys wait", alone, 20 * time.Second, 5 * time.Second, 3, together, poison},
	{"postgres-kill", "PostgreSQL is killed: 503 with Retry-After, work goes on within 5 s of its return", alone, 20 * time.Second, 2 * time.Second, 2, prompt, postgresKilled},
	{"postgres-immediate", "the same with an immediate shutdown", alone, 20 * time.Second, 2 * time.Second, 2, prompt, postgresImmediate},
	{"postgres-restart", "the same with an orderly restart", alone, 20 * time.Second, 2 * time.Second, 2, prompt, postgresRestarted},
	{"postgres-hang", "PostgreSQL hangs: waits are bounded, neither goroutines nor connections grow", alone, 30 * time.Second, 8 * time.Second, 1, prompt, postgresHangs},

	{"failover", "the primary is killed and its synchronous standby promoted: nothing acknowledged is lost", pair, 0, 0, 2, together, failover},
	{"pooler-kill", "everything through PgBouncer: processes are killed", pooled, 0, 0, 2, together, kill},
	{"pooler-cut", "everything through PgBouncer: connections are cut, also after COMMIT", pooled, 3 * time.Second, 2 * time.Second, 2, together, commitsUnknown},
	{"pooler-restart", "everything through PgBouncer, which is restarted", pooled, 2 * time.Second, time.Second, 1, together, poolerRestarted},
	{"disk-data", "the disk with the data is full: 503, no corruption, work goes on", diskData, 10 * time.Second, 3 * time.Second, 1, together, diskFull},
	{"disk-wal", "the disk with the write-ahead log is full: 503, no corruption, work goes on", diskWAL, 10 * time.Second, 3 * time.Second, 1, together, diskFull},

	{"backlog", "a backlog of 1,000,000, then normal traffic on top: nobody who writes feels it", alone, 0, 0, 0, single, backlog},
	{"million-poisons", "a million poisoned events: bounded memory, only their own keys wait", alone, 0, 0, 0, single, millionPoisons},
	{"soak", "all of these at random, two at once: memory stays flat, tables and indexes within twice their live size", alone, 20 * time.Minute, 0, 0, single, soak},
}

// of returns the kinds of a setting that are at home in a stage with one of these companies.
func of(where setting, with ...company) []kind {
	var out []kind
	for _, k := range kinds {
		if k.in == where && slices.Contains(with, k.stage) {
			out = append(out, k)
		}
	}
	return out
}

// lasts is for how long the kind hurts: in the long form the whole of it in its first turn, and between 2 s and that when it is drawn.
func (k kind) lasts(s *stage) time.Duration {
	switch {
	case !s.long:
		return k.short
	case s.firstTurn(k.name):
		return k.long
	}
	low := min(2*time.Second, k.long)
	return low + time.Duration(s.rng.Int64N(int64(k.long-low)+1))
}

// firstTurn reports whether no fault of the kind was injected in this stage before.
func (s *stage) firstTurn(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults[kind] == 0
}
