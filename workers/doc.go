// Package workers runs the outbox's engine on River: the relay, the drains and the deliveries are River jobs.
//
//	reg := outbox.NewRegistry()
//	outbox.Handle(reg, "billing", startTrial, outbox.On("user.signed_up"))
//	w, err := workers.New(pool, reg, workers.Config{})
//	…
//	err = w.Start(ctx)
//	defer w.Stop(context.Background())
//
// Each consumer has two queues, for its drains and its deliveries (outbox.DrainQueue, outbox.DeliverQueue); the relay
// has one too. Any number of processes may run on one database. A process takes only the consumers whose
// subscriptions in the database its code covers.
//
// Wake-ups (drain jobs) carry no uniqueness: one too many ends at once, and one that is lost with a process is given
// again while the lane is behind. The relay is one long job; a loop in every process starts another when it falls silent.
package workers
