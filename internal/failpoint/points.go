// Package failpoint names the places between the steps of the engine and of a request at which a process can be made to die,
// or to stand still. A build without the tag faults has nothing of it: At is empty, and Serve does nothing. In a build with
// it, which is for the fault harness and needs Linux, Serve listens for orders.
package failpoint

// Point is a place in the code. In what is said of them, "the transaction" is one that has begun and not committed: what dies
// there leaves nothing behind.
type Point string

// A producer's transaction (outbox.InTx).
const (
	// ProducerState: the transaction holds what the producer wrote itself. Events that were appended last are in memory alone.
	ProducerState Point = "producer.state"
	// ProducerAppendBefore: events are about to be written, in a round trip of their own. Their keys are not locked.
	ProducerAppendBefore Point = "producer.append.before"
	// ProducerAppendAfter: the transaction holds the events and the locks of their keys.
	ProducerAppendAfter Point = "producer.append.after"
	// ProducerCommitBefore: all is in the transaction, but for events that travel with its commit.
	ProducerCommitBefore Point = "producer.commit.before"
	// ProducerCommitAfter: state and events are committed. No relay is woken, and the caller does not know.
	ProducerCommitAfter Point = "producer.commit.after"
)

// A request that writes.
const (
	// RequestWorkBefore: the transaction has begun and, with an Idempotency-Key, holds its lock; nothing is written.
	RequestWorkBefore Point = "request.work.before"
	// RequestWorkAfter: the request's work and its events are in the transaction. The answer is not kept.
	RequestWorkAfter Point = "request.work.after"
	// RequestAnswerBefore: work, events and kept answer are committed. The client does not know.
	RequestAnswerBefore Point = "request.answer.before"
)

// The relay.
const (
	// RelayLeadAfter: relay_state has this relay's token, committed. It has moved nothing and knows of no lane.
	RelayLeadAfter Point = "relay.lead.after"
	// RelayClaimBefore: no transaction. What is committed lies in outbox.
	RelayClaimBefore Point = "relay.claim.before"
	// RelayClaimAfter: rows have moved from outbox to events, committed. Nobody is woken, and only this process knows which
	// lanes have work.
	RelayClaimAfter Point = "relay.claim.after"
	// RelayPartitions: the transaction holds new partitions of events.
	RelayPartitions Point = "relay.partitions"
	// RelayQuarantine: the transaction has set a row aside that the log refuses.
	RelayQuarantine Point = "relay.quarantine"
	// RelayDueBefore: the transaction has the keys of scheduled events that are due. They lie in scheduled.
	RelayDueBefore Point = "relay.due.before"
	// RelayDueAfter: they have moved to outbox, committed.
	RelayDueAfter Point = "relay.due.after"
	// RelayWakeBefore: lanes are due. No job of theirs is inserted, and no drain has begun.
	RelayWakeBefore Point = "relay.wake.before"
	// RelayWakeInserted: the transaction holds a drain job for each lane that had none in its queue.
	RelayWakeInserted Point = "relay.wake.inserted"
	// RelayWakeAfter: they are committed.
	RelayWakeAfter Point = "relay.wake.after"
)

// A drain.
const (
	// DrainFetchBefore: no transaction. The drain's job, where it has one, is running.
	DrainFetchBefore Point = "drain.fetch.before"
	// DrainFetchAfter: the transaction has the lane and its events, those ahead of the cursor or those that waited, and has deleted
	// the drain's job. None has run.
	DrainFetchAfter Point = "drain.fetch.after"
	// DrainTaken: another has the lane, or the consumer is paused. The transaction has deleted the drain's job.
	DrainTaken Point = "drain.taken"
	// DrainTry: a batch of this lane ended with its process. That is noted, committed, and the lane is free.
	DrainTry Point = "drain.try"
	// DrainEscalate: the first event of the batch is about to leave its lane unrun. The transaction holds nothing of it.
	DrainEscalate Point = "drain.escalate"
	// DrainRelease: the transaction has read what waited for settled keys. None of it has run.
	DrainRelease Point = "drain.release"
	// DrainHandlerBefore: a handler is about to run. The transaction may hold what others have done.
	DrainHandlerBefore Point = "drain.handler.before"
	// DrainHandlerAfter: it has run. The transaction holds what it sent itself; what it queued is here, or on its way.
	DrainHandlerAfter Point = "drain.handler.after"
	// DrainDedupe: all handlers have run. The transaction holds no row of processed_events for it.
	DrainDedupe Point = "drain.dedupe"
	// DrainPark: what comes behind a held event is about to be written to waiting, with the commit. The cursor has not moved.
	DrainPark Point = "drain.park"
	// DrainHold: the transaction holds the jobs of what leaves the lane, and not its holds.
	DrainHold Point = "drain.hold"
	// DrainCommitBefore: dedupe rows, holds, waiting rows, cursor and appended events are about to be sent, with the commit.
	DrainCommitBefore Point = "drain.commit.before"
	// DrainCommitAfter: the batch is committed, and the lane is free. Nobody knows, and no next turn is queued.
	DrainCommitAfter Point = "drain.commit.after"
	// DrainNext: the drain ends with work left in its lane, and the job of the next turn is not inserted.
	DrainNext Point = "drain.next"
)

// A delivery.
const (
	// DeliverClaimBefore: the job is running. The hold has the token of an earlier attempt.
	DeliverClaimBefore Point = "deliver.claim.before"
	// DeliverClaimAfter: the hold has this attempt's token, and counts it, committed.
	DeliverClaimAfter Point = "deliver.claim.after"
	// DeliverDedupe: the transaction has the locks of job, key and hold, and the dedupe row. The work, or the record of a call
	// to the outside that has been made, is not in it.
	DeliverDedupe Point = "deliver.dedupe"
	// DeliverHandlerBefore: the handler is about to run: in the transaction of DeliverDedupe or, where it calls the outside,
	// outside of any.
	DeliverHandlerBefore Point = "deliver.handler.before"
	// DeliverHandlerAfter: it has run. What it did in the database is in the transaction or queued; what it did outside is done, and
	// nobody knows.
	DeliverHandlerAfter Point = "deliver.handler.after"
	// DeliverCommitBefore: the hold's end and appended events are about to be sent, with the commit.
	DeliverCommitBefore Point = "deliver.commit.before"
	// DeliverCommitAfter: the event is settled and the job gone, committed. What waits is not released.
	DeliverCommitAfter Point = "deliver.commit.after"
	// DeliverFailBefore: the attempt has failed, and its own transaction is rolled back. Nothing says so.
	DeliverFailBefore Point = "deliver.fail.before"
	// DeliverFailAfter: the delivery log has the failure, or the hold has the attempt back, committed. The job is running.
	DeliverFailAfter Point = "deliver.fail.after"
	// DeliverComplete: the outcome is recorded. River has not heard of it.
	DeliverComplete Point = "deliver.complete"
)

// A payment, between what the provider is asked and what is committed of it.
const (
	// PaymentBeginAfter: the payment's row is committed. The provider was asked nothing.
	PaymentBeginAfter Point = "payment.begin.after"
	// PaymentIntentBefore: the provider has made the intent, or found it. Nobody but this process knows its id.
	PaymentIntentBefore Point = "payment.intent.before"
	// PaymentIntentAfter: the intent's id is committed. It is not confirmed.
	PaymentIntentAfter Point = "payment.intent.after"
	// PaymentConfirmAfter: the provider has charged, or declined, and said so. Nothing here does.
	PaymentConfirmAfter Point = "payment.confirm.after"
)

// Maintenance and operators.
const (
	// RescueBefore: the transaction has the deliver jobs whose processes died. None is changed.
	RescueBefore Point = "rescue.before"
	// RescueAfter: the transaction has given them back.
	RescueAfter Point = "rescue.after"
	// ReconcileBefore: the transaction has found holds that nobody works on.
	ReconcileBefore Point = "reconcile.before"
	// ReconcileAfter: the transaction holds a letter or a job for each of them.
	ReconcileAfter Point = "reconcile.after"
	// ReplayBefore: the transaction holds the new job, the hold and the letter of a replay.
	ReplayBefore Point = "replay.before"
	// ReplayAfter: they are committed. Who asked does not know.
	ReplayAfter Point = "replay.after"
	// DismissBefore: the transaction holds a dismissed letter and its settled hold.
	DismissBefore Point = "dismiss.before"
	// DismissAfter: they are committed. What waited behind them is not released.
	DismissAfter Point = "dismiss.after"
	// BackfillBefore: the transaction holds a run, its lanes' cursors set back, and their drain jobs.
	BackfillBefore Point = "backfill.before"
	// BackfillAfter: they are committed.
	BackfillAfter Point = "backfill.after"
	// OperationBeginBefore: the transaction holds an operation, its letters and its groups.
	OperationBeginBefore Point = "operation.begin.before"
	// OperationBeginAfter: they are committed. Who asked does not know.
	OperationBeginAfter Point = "operation.begin.after"
	// OperationStepBefore: the transaction has replayed a letter, or skipped it, and holds what the operation says of it.
	OperationStepBefore Point = "operation.step.before"
	// OperationStepAfter: a step of an operation is committed.
	OperationStepAfter Point = "operation.step.after"
	// RetentionFloorBefore: the transaction has raised the floor of the log.
	RetentionFloorBefore Point = "retention.floor.before"
	// RetentionFloorAfter: the new floor is committed. What lies below it is there.
	RetentionFloorAfter Point = "retention.floor.after"
	// RetentionPartition: the transaction has dropped a partition, or put a smaller one in its place.
	RetentionPartition Point = "retention.partition"
)

var all = [...]Point{
	ProducerState, ProducerAppendBefore, ProducerAppendAfter, ProducerCommitBefore, ProducerCommitAfter,
	RequestWorkBefore, RequestWorkAfter, RequestAnswerBefore,
	RelayLeadAfter, RelayClaimBefore, RelayClaimAfter, RelayPartitions, RelayQuarantine, RelayDueBefore, RelayDueAfter,
	RelayWakeBefore, RelayWakeInserted, RelayWakeAfter,
	DrainFetchBefore, DrainFetchAfter, DrainTaken, DrainTry, DrainEscalate, DrainRelease, DrainHandlerBefore, DrainHandlerAfter,
	DrainDedupe, DrainPark, DrainHold, DrainCommitBefore, DrainCommitAfter, DrainNext,
	DeliverClaimBefore, DeliverClaimAfter, DeliverDedupe, DeliverHandlerBefore, DeliverHandlerAfter,
	DeliverCommitBefore, DeliverCommitAfter, DeliverFailBefore, DeliverFailAfter, DeliverComplete,
	PaymentBeginAfter, PaymentIntentBefore, PaymentIntentAfter, PaymentConfirmAfter,
	RescueBefore, RescueAfter, ReconcileBefore, ReconcileAfter, ReplayBefore, ReplayAfter, DismissBefore, DismissAfter,
	BackfillBefore, BackfillAfter, OperationBeginBefore, OperationBeginAfter, OperationStepBefore, OperationStepAfter,
	RetentionFloorBefore, RetentionFloorAfter, RetentionPartition,
}

// All returns every point.
func All() []Point { return all[:] }

// EnvAddr is where Serve listens.
const EnvAddr = "OUTBOX_FAULTS_ADDR"

// DiesAt comes before the point's name in the last line that a process writes to its standard error before it kills itself.
const DiesAt = "failpoint: dies at "

// EnvEvery is a duration, in a build with the tag faults: how often what is done seldom is done.
const EnvEvery = "OUTBOX_FAULTS_EVERY"
