package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"text/tabwriter"
)

// figure is one thing that a case measures.
type figure struct{ name, unit, about string }

// measurement is a case: it runs once a round and gives a value for each of its figures.
type measurement struct {
	gives []figure
	on    template
	once  bool // a long one, which --quick runs but once
	long  bool // --quick leaves it out, unless it is asked for
	run   func(ctx context.Context, e *env) ([]float64, error)
}

func (m measurement) matches(only *regexp.Regexp) bool {
	return slices.ContainsFunc(m.gives, func(f figure) bool { return only.MatchString(f.name) })
}

const (
	perSecond     = "events/s"
	deliveriesPer = "deliveries/s"
	writesPer     = "writes/s"
)

func one(name, unit, about string) []figure { return []figure{{name, unit, about}} }

// measurements are all cases, in the order of a round.
var measurements = []measurement{
	{
		gives: one("limit/one-statement", perSecond, "one statement dequeues, dedupes and writes the effect, for 1,000 at a time, unordered"),
		on:    withRiver, run: oneStatementLimit,
	},
	{
		gives: one("ours/handle/keys=10000", perSecond, "ordinary handler, which queues its statement; one consumer, 10,000 keys"),
		on:    withOutbox, run: ours{style: queueing, consumers: 1, keys: 10_000}.throughput,
	},
	{
		gives: one("river/complete-tx", perSecond, "River: dedupe, effect and JobCompleteTx in one transaction, 100 workers"),
		on:    withRiver, run: riverCompleteTx,
	},
	{
		gives: one("ours/handle-exec", perSecond, "the handler sends one Exec per event"),
		on:    withOutbox, run: ours{style: execing, consumers: 1, keys: 10_000}.throughput,
	},
	{
		gives: one("ours/handle/keys=100", perSecond, "ordinary handler, 100 keys"),
		on:    withOutbox, run: ours{style: queueing, consumers: 1, keys: 100}.throughput,
	},
	{
		gives: one("ours/handle/keys=1", perSecond, "ordinary handler, all events of one key"),
		on:    withOutbox, run: ours{style: queueing, consumers: 1, keys: 1}.throughput,
	},
	{
		gives: one("river/one-statement", perSecond, "River: dedupe and effect in one statement, completion left to River's batches"),
		on:    withRiver, run: riverOneStatement,
	},
	{
		gives: one("ours/handle/failing=0.05%", perSecond, "ordinary handler, every 2,000th event fails once"),
		on:    withOutbox, run: ours{style: queueing, consumers: 1, keys: 10_000, failEvery: 2000}.throughput,
	},
	{
		gives: one("ours/handle/failing=1%", perSecond, "ordinary handler, every 100th event fails once"),
		on:    withOutbox, run: ours{style: queueing, consumers: 1, keys: 10_000, failEvery: 100}.throughput,
	},
	{
		gives: one("ours/handle/consumers=3", deliveriesPer, "ordinary handlers of three consumers"),
		on:    withOutbox, run: ours{style: queueing, consumers: 3, keys: 10_000}.throughput,
	},
	{
		gives: one("ours/batch/consumers=1", perSecond, "set-based handler"),
		on:    withOutbox, run: ours{style: setBased, consumers: 1, keys: 10_000}.throughput,
	},
	{
		gives: one("ours/batch/consumers=3", deliveriesPer, "set-based handlers of three consumers"),
		on:    withOutbox, run: ours{style: setBased, consumers: 3, keys: 10_000}.throughput,
	},
	{
		gives: one("watermill/best", perSecond, "Watermill-SQL v4, one subscriber, dedupe and effect in one statement in the message's transaction"),
		on:    withRiver, run: watermillBest,
	},
	{
		gives: one("write/state", writesPer, "64 clients: one state row in a transaction"),
		on:    withOutbox, run: writeStateOnly.measure,
	},
	{
		gives: one("write/append", writesPer, "the same with outbox.InTx and outbox.Append"),
		on:    withOutbox, run: writeAppend.measure,
	},
	{
		gives: one("write/river-insert-tx", writesPer, "the same with River's InsertTx"),
		on:    withRiver, run: writeRiver.measure,
	},
	{
		gives: one("write/pg-notify", writesPer, "the same with a plain outbox row and pg_notify"),
		on:    withRiver, run: writeNotify.measure,
	},
	{
		gives: one("sustained/ours", perSecond, "32 writers with InTx, Later and Append, and one consumer beside them"),
		on:    withOutbox, run: sustainedOurs{}.measure,
	},
	{
		gives: one("sustained/ours-exec", perSecond, "the same, but the writers wait for the answer to the state row's INSERT"),
		on:    withOutbox, long: true, run: sustainedOurs{waiting: true}.measure,
	},
	{
		gives: one("sustained/river", perSecond, "32 writers with InsertTx, and effects with JobCompleteTx beside them"),
		on:    withRiver, run: sustainedRiver,
	},
	{
		gives: []figure{
			{"latency/ours/p50", "ms", "commit of the state → commit of the effect at 100 events/s"},
			{"latency/ours/p99", "ms", "the same"},
		},
		on: withOutbox, run: latencyOurs,
	},
	{
		gives: []figure{
			{"latency/river/p50", "ms", "the same with InsertTx, FetchCooldown 1 ms and JobCompleteTx"},
			{"latency/river/p99", "ms", "the same"},
		},
		on: withRiver, run: latencyRiver,
	},
	{
		gives: []figure{
			{"backlog/rss", "MiB", "peak memory of a service with three consumers that works off a backlog"},
			{"backlog/end-over-start", "ratio", "its rate over the last fifth against that over the second"},
			{"backlog/rate", deliveriesPer, "its rate over all"},
		},
		on: withOutbox, once: true, run: backlog,
	},
	{
		gives: one("catchup/rate", perSecond, "a new consumer beside a live one, from the oldest event of a history until it has caught up"),
		on:    withOutbox, once: true, run: catchUp,
	},
	{
		gives: one("snapshot/last-over-first", "ratio", "rate of the last of four cycles of 20,000 events against the first, while an old snapshot is held open"),
		on:    withOutbox, once: true, run: oldSnapshot,
	},
	{
		gives: []figure{
			{"idle/queries", "per s", "transactions of an idle service with six consumers, as the server counts them"},
			{"idle/statements", "per s", "statements that it sends, BEGIN and COMMIT among them"},
		},
		on: withOutbox, once: true, run: idle,
	},
	{
		gives: []figure{
			{"scrape/p50", "ms", "what a scrape of the metrics asks of the database, with a backlog ahead of six consumers and 10,000 dead letters each"},
			{"scrape/p99", "ms", "the same"},
			{"overview/p50", "ms", "the overview page, with the same ahead and the 10,000 letters of one consumer, in a process that nobody has looked at before: what the server needs from request to answer"},
			{"overview/p99", "ms", "the same"},
		},
		on: withOutbox, once: true, long: true, run: scrape,
	},
}

func listCases(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range measurements {
		for _, f := range m.gives {
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", f.name, f.unit, f.about)
		}
	}
	return t.Flush()
}
