// Package workers runs the outbox's engine on River: the relay, the drains and the deliveries are River jobs.
//
//	reg := outbox.NewRegistry()
//	outbox.Handle(reg, "billing", startTrial, outbox.On("user.signed_up"))
//	w, err := workers.New(pool, reg, workers.Config{})
//	…
//	err = w.Start(ctx)
//	defer w.Stop(context.Background())
//
// The tables, River's among them, are made by migrations.Up. A process that only appends events needs no workers; one that only
// replays dead letters needs [NewJobs]. A test runs the workers with package outboxtest.
//
// # Jobs and queues
//
//	outbox_relay             the queue of the relay: one long job, which moves what is committed and wakes the lanes
//	outbox_<consumer>        a consumer's drains, at most 4 in a process, for a second each
//	deliver_<consumer>       its deliveries, outbox.Concurrency of them in a process
//
// ([outbox.DrainQueue] and [outbox.DeliverQueue] give the names.) Under little load the process whose relay leads drains without a
// job. River's own tools show and retry the jobs; a deliver job that ends there unfinished becomes a dead letter, and one that is
// retried there a replay.
//
// # Several processes
//
// Any number of processes may run on one database. A process takes only the consumers whose subscriptions in the database its code
// covers, and asks every five seconds whether that has changed: so a consumer that is renamed (outbox.Formerly) or that handles
// new types goes over to the new build within a deploy.
//
// Wake-ups (drain jobs) carry no uniqueness: one too many ends at once, and one that is lost with a process is given
// again while the lane is behind. A loop in every process starts another relay when the one falls silent, gives back the jobs of
// processes that died, and finds what has neither a job nor a letter. [Workers.Ready] tells whether that loop reaches the database.
package workers
