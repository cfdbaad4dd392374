// Package outbox is a transactional outbox on PostgreSQL: events that are written in the transaction of the state they
// tell of, and that reach every consumer exactly once in effect and in order per key.
//
// # Producing
//
// [Append] writes an event as part of a transaction; [InTx] also wakes the relay after the commit:
//
//	err := outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
//		if _, err := tx.Exec(ctx, `insert into users …`); err != nil {
//			return err
//		}
//		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: userID, Data: SignedUp{…}})
//		return err
//	})
//
// [Event].NotBefore schedules an event, and [CancelScheduled] takes it back.
//
// Any other language calls the SQL function outbox_append(type, key, data, …) in its transaction.
//
// # Consuming
//
// A [Registry] holds the consumers. Each has a name, by which the database knows it from its first start on, and subscribes to
// types of events ([On]).
//
//	reg := outbox.NewRegistry()
//	outbox.Handle(reg, "billing", startTrial, outbox.On("user.signed_up"))
//	outbox.HandleExternal(reg, "welcome-email", sendWelcome, outbox.On("user.signed_up"))
//	outbox.HandleBatch(reg, "search-index", indexMany, outbox.On("product.*"))
//
// [Handle] and [HandleBatch] register work in the database, which commits together with the note that the event is
// processed: it happens once. [HandleExternal] registers calls to the outside, which get the event's id as idempotency key.
// Package workers runs them on River; its package outboxtest runs them in a test until all is quiet.
//
// A handler that returns an error is tried again ([MaxAttempts], [Backoff]), unless the error is [Permanent]. When the
// attempts are used up, the event is a dead letter, and its key stays held until somebody deals with it, or goes on
// without it ([OnDead]). All other keys go on in any case.
//
// # Operating
//
// An [Operator] lists dead letters, replays and dismisses them, one ([Operator.Replay]) or all of a kind ([Operator.ReplayAll]), and says
// beforehand what a replay would do ([Operator.Rehearse]). A person's data in what is kept of a letter is redacted ([Operator.Redact]). It
// tells what became of an event ([Operator.Event], [Operator.Trace]) and how far each consumer is ([Operator.Consumers]), and pauses consumers.
//
// # Changing consumers
//
// The log outlives the code that reads it:
//
//   - A new consumer starts from now, from the beginning of the log or from a time ([StartFrom]).
//   - One whose code was wrong runs again over a part of the log, once, without the others' noticing ([Operator.Backfill]).
//   - One that is renamed keeps all that it had ([Formerly]); one that is given up is removed ([Operator.Remove]), and so is a
//     subscription ([Operator.Unsubscribe]).
//   - What is older than the retention goes ([Engine.Retain]), but for what something is left to do with.
//   - Events that were written with an older shape of their data reach the handlers in today's ([Upcast]).
//
// In a rolling deploy a process leaves alone what its code does not cover: a consumer that subscribes to more than it handles, or
// whose name was given up.
//
// # Reading what followed
//
// [Wait] returns when consumers have processed an event, so that who wrote can read what came of it:
//
//	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
//	defer cancel()
//	err := outbox.Wait(ctx, pool, eventID, "billing")
//
// With [Config].TracerProvider all that follows from a producer's OpenTelemetry span is shown below it, in the spans of relay, drains and
// deliveries; a handler's context has the span that it runs in. docs/observability.md in the repository says what they tell.
//
// # The way of an event
//
//	producer   one transaction: state + outbox          the key's advisory lock, then the row
//	relay      outbox → events                          one at a time; positions without gaps, in commit order
//	drain      events after the cursor of a lane        one transaction: handlers' work, processed_events, holds, cursor
//	deliver    one held event                           attempts with backoff, fenced by the hold's token
//	letter     discarded_jobs                           attempts used up: an operator replays or dismisses
//
// A lane is one of 64 shares of the keys. A hold says that nothing of its key goes to its consumer until its event is
// settled; what comes later of that key waits, in order. docs/architecture.md in the repository draws all of it, and says what
// happens when a part dies.
//
//	                 ┌────────────► processed
//	ahead of cursor ─┤                  ▲ ▲
//	                 ├─► in flight ─────┘ │ replay succeeds
//	                 │   (hold)  ▲ │      │
//	                 │           │ └─► dead ──► dismissed
//	                 └─► waiting ┘
//
// While an event is dead, its key is held, unless the consumer goes on without it ([OnDead], [Skip]): then the event is
// skipped, and a replay of it, which is out of order, has to be forced. A backfill takes what is processed or dismissed back to
// ahead of the cursor, for one more turn.
//
// # Invariants
//
//   - An event is, for each consumer that subscribes to it, in exactly one of the places above. [Operator.Check] proves it.
//   - Only who has the lane's lock inserts or deletes holds and waiting rows: a drain, the replay of a skipped event, a removal.
//     Everybody else marks a hold as settled or dead; a settled hold makes its lane ready.
//   - Locks are taken in this order: operations, the lane, river_job, the key, holds, discarded_jobs; and each in a statement before any read.
//   - The hold's token is redrawn at each attempt, death, replay and dismissal: whoever finds another than his own does nothing.
//   - Wake-ups go by state. One that is lost is given again, one too many ends at once.
//
// All functions are safe for concurrent use unless they say otherwise.
package outbox
