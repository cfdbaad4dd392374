package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// An operator needs no workers in its process.
func ExampleNewOperator() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	jobs, err := workers.NewJobs(pool, "")
	must(err)
	operator := outbox.NewOperator(pool, jobs, "", nil)
	_, err = operator.Letter(ctx, 17)
	fmt.Println(errors.Is(err, outbox.ErrNotFound))
	// Output: true
}

// The event is repaired for its consumer, and goes to it again; what waited behind it follows.
func ExampleOperator_Replay() {
	ctx := context.Background()
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		if e.Data.Name == "" {
			return outbox.Permanent(errors.New("nobody has no name"))
		}
		fmt.Println("welcome,", e.Data.Name)
		return nil
	}, outbox.On("user.*"))
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx,
			outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{}},
			outbox.Event{Type: "user.renamed", Key: "user-1", Data: User{"Ada L."}})
		return err
	}))
	work(pool, reg)

	operator := exampleOperator(pool)
	dead, err := operator.Letters(ctx, outbox.LetterFilter{Consumer: "greeter", State: "dead"}, 0, 10)
	must(err)
	letter, err := operator.Letter(ctx, dead[0].ID)
	must(err)
	fmt.Printf("%s: %s (%d waiting)\n", letter.Type, letter.Error, letter.WaitingCount)

	_, err = operator.Replay(ctx, letter.ID, json.RawMessage(`{"name":"Ada"}`), outbox.Action{Actor: "anna", Reason: "she was asked"})
	must(err)
	work(pool, reg)
	// Output:
	// user.signed_up: nobody has no name (1 waiting)
	// welcome, Ada
	// welcome, Ada L.
}

// What is given up is not processed, and is not lost without a trace either.
func ExampleOperator_Dismiss() {
	ctx := context.Background()
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(context.Context, pgx.Tx, outbox.Received[User]) error {
		return outbox.Permanent(errors.New("never"))
	}, outbox.On("user.*"))
	signUp(pool, "Ada")
	work(pool, reg)

	operator := exampleOperator(pool)
	_, err := operator.Dismiss(ctx, 1, outbox.Action{Actor: "anna"})
	fmt.Println(err)
	dismissal, err := operator.Dismiss(ctx, 1, outbox.Action{Actor: "anna", Reason: "a test account"})
	must(err)
	fmt.Println(dismissal.State, dismissal.ReleasedCount)
	// Output:
	// outbox: a reason is required
	// dismissed 0
}

// After a repair of its code, a consumer runs again over what it has come past.
func ExampleOperator_Backfill() {
	ctx := context.Background()
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "directory", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Println("listed", e.Data.Name, e.Backfill > 0)
		return nil
	}, outbox.On("user.signed_up"))
	signUp(pool, "Ada")
	work(pool, reg)

	operator := exampleOperator(pool)
	run, err := operator.Backfill(ctx, "directory", outbox.Backfill{From: outbox.Beginning}, outbox.Action{Actor: "anna", Reason: "names in full"})
	must(err)
	fmt.Println(run.State, run.Events)
	work(pool, reg)
	run, err = operator.BackfillStatus(ctx, run.ID)
	must(err)
	fmt.Println(run.State)
	// Output:
	// listed Ada false
	// running 1
	// listed Ada true
	// done
}

// A consumer that is in no program any more is removed, so that nothing counts as left to it.
func ExampleOperator_Remove() {
	ctx := context.Background()
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "directory", func(context.Context, pgx.Tx, outbox.Received[User]) error { return nil }, outbox.On("user.*"))
	work(pool, reg)
	signUp(pool, "Ada")
	work(pool, outbox.NewRegistry()) // the programs of today do not have it

	operator := exampleOperator(pool)
	_, err := operator.Remove(ctx, "directory", outbox.Action{Actor: "anna", Reason: "nobody looks anything up"})
	var conflict *outbox.ConflictError
	fmt.Println(errors.As(err, &conflict))
	removal, err := operator.Remove(ctx, "directory", outbox.Action{Actor: "anna", Reason: "nobody looks anything up", Force: true})
	must(err)
	fmt.Println(removal.Consumer, removal.Lag)
	// Output:
	// true
	// directory 1
}

// All that followed from a request, with what became of it at each consumer.
func ExampleOperator_Trace() {
	ctx := outbox.WithCorrelationID(context.Background(), "request-1")
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(context.Context, pgx.Tx, outbox.Received[User]) error { return nil }, outbox.On("user.*"))
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Ada"}})
		return err
	}))
	work(pool, reg)

	timeline, err := exampleOperator(pool).Trace(ctx, "request-1")
	must(err)
	for _, e := range timeline.Events {
		for _, d := range e.Deliveries {
			fmt.Println(e.Type, d.Consumer, d.State, d.Explanation)
		}
	}
	// Output: user.signed_up greeter processed done
}

// The places of all events are proven from the tables; what an earlier check found in order is passed over.
func ExampleOperator_CheckWith() {
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(context.Context, pgx.Tx, outbox.Received[User]) error { return nil }, outbox.On("user.*"))
	signUp(pool, "Ada", "Grace")
	work(pool, reg)

	report, err := exampleOperator(pool).CheckWith(context.Background(), outbox.CheckOptions{Incremental: true})
	must(err)
	fmt.Println(report.Checked, "events,", report.Deliveries, "deliveries,", len(report.Problems), "problems")
	// Output: 2 events, 2 deliveries, 0 problems
}
