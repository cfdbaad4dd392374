package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// User is the data of user.signed_up.
type User struct {
	Name string `json:"name"`
}

// An event is written with the state that it tells of, and handled by whoever wants to know. Package workers runs the consumers.
func Example() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Printf("%s of %s: welcome, %s\n", e.Type, e.Key, e.Data.Name)
		return nil
	}, outbox.On("user.*"))

	err := outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		// … the user's own row, by tx …
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Ada"}})
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	work(pool, reg)
	// Output: user.signed_up of user-1: welcome, Ada
}

// Several events are best appended in one call: it takes their keys' locks in one order, so that two such transactions cannot
// deadlock.
func ExampleAppend() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx,
			outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Ada"}},
			outbox.Event{Type: "user.signed_up", Key: "", Data: User{"Bob"}})
		return err
	})
	var invalid *outbox.InvalidEventError
	fmt.Println(errors.As(err, &invalid), invalid.Field)
	// Output: true key
}

// What nobody waits for travels with the commit: one round trip for the whole transaction. What the server refuses is then
// the error of InTx.
func ExampleLater() {
	ctx := context.Background()
	pool, end := database(`CREATE TABLE members (id integer PRIMARY KEY, name text NOT NULL)`)
	defer end()

	signUp := func(id int, name string) error {
		return outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
			if _, err := outbox.Later(tx).Exec(ctx, `INSERT INTO members (id, name) VALUES ($1, $2)`, id, name); err != nil {
				return err
			}
			_, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: fmt.Sprint("user-", id), Data: User{name}})
			return err
		})
	}
	fmt.Println(signUp(1, "Ada"))

	err := signUp(1, "Grace")
	var refused *pgconn.PgError
	fmt.Println(errors.As(err, &refused) && refused.Code == "23505", outbox.IsOutcomeUnknown(err))
	// Output:
	// <nil>
	// true false
}

// What fn did is undone, events included, when it fails.
func ExampleInTx() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	err := outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Ada"}}); err != nil {
			return err
		}
		return errors.New("the address is taken")
	})
	fmt.Println(err)
	report, err := exampleOperator(pool).Check(ctx)
	fmt.Println(report.Outbox, "events,", err)
	// Output:
	// the address is taken
	// 0 events, <nil>
}

// What a handler appends is written with its work, and follows from the event: it has its correlation id, and names it as its
// cause.
func ExampleHandle() {
	ctx := outbox.WithCorrelationID(context.Background(), "request-1")
	pool, end := database()
	defer end()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "billing", func(ctx context.Context, tx pgx.Tx, e outbox.Received[User]) error {
		// … a row for the trial, by tx …
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "trial.started", Key: e.Key, Data: e.Data})
		return err
	}, outbox.On("user.signed_up"))
	outbox.Handle(reg, "printer", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Println(e.Type, e.CorrelationID, e.CausationID != uuid.Nil)
		return nil
	}, outbox.On("trial.*"))

	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Ada"}})
		return err
	}))
	work(pool, reg)
	// Output: trial.started request-1 true
}

// One statement for all events of a batch.
func ExampleHandleBatch() {
	pool, end := database(`CREATE TABLE directory (id text, name text)`)
	defer end()

	reg := outbox.NewRegistry()
	outbox.HandleBatch(reg, "directory", func(ctx context.Context, tx pgx.Tx, events []outbox.Received[User]) error {
		ids, names := make([]string, len(events)), make([]string, len(events))
		for i, e := range events {
			ids[i], names[i] = e.Key, e.Data.Name
		}
		_, err := tx.Exec(ctx, `INSERT INTO directory (id, name) SELECT * FROM unnest($1::text[], $2::text[])`, ids, names)
		return err
	}, outbox.On("user.signed_up"))

	signUp(pool, "Ada", "Grace")
	work(pool, reg)
	show(pool, `SELECT string_agg(name, ', ' ORDER BY id) FROM directory`)
	// Output: Ada, Grace
}

// The call to the outside is in no transaction; what it gave is recorded in the one that marks the event as processed.
func ExampleHandleExternal() {
	pool, end := database(`CREATE TABLE mails (user_id text, receipt text)`)
	defer end()

	send := func(_ context.Context, idempotencyKey string, u User) (receipt string, err error) {
		return "250 queued for " + u.Name, nil // … a mail, with the key as its Message-ID …
	}
	reg := outbox.NewRegistry()
	outbox.HandleExternal(reg, "welcome-mail", func(ctx context.Context, e outbox.Received[User]) (func(context.Context, pgx.Tx) error, error) {
		receipt, err := send(ctx, e.ID.String(), e.Data)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO mails (user_id, receipt) VALUES ($1, $2)`, e.Key, receipt)
			return err
		}, nil
	}, outbox.On("user.signed_up"))

	signUp(pool, "Ada")
	work(pool, reg)
	show(pool, `SELECT receipt FROM mails`)
	// Output: 250 queued for Ada
}

// A queued statement travels with those of other events: the handler waits for no round trip.
func ExampleBatch() {
	pool, end := database(`CREATE TABLE statistics (users integer)`, `INSERT INTO statistics VALUES (0)`)
	defer end()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "statistics", func(ctx context.Context, _ pgx.Tx, _ outbox.Received[User]) error {
		outbox.Batch(ctx).Queue(`UPDATE statistics SET users = users + 1`)
		return nil
	}, outbox.On("user.signed_up"))

	signUp(pool, "Ada", "Grace", "Barbara")
	work(pool, reg)
	show(pool, `SELECT users::text FROM statistics`)
	// Output: 3
}

// An error that no further attempt can mend makes a dead letter at once.
func ExamplePermanent() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		if e.Data.Name == "" {
			return outbox.Permanent(errors.New("nobody has no name"))
		}
		return nil
	}, outbox.On("user.signed_up"))
	signUp(pool, "")
	work(pool, reg)

	letters, err := exampleOperator(pool).Letters(ctx, outbox.LetterFilter{State: "dead"}, 0, 10)
	must(err)
	fmt.Printf("%s after %d attempt: %s\n", letters[0].Consumer, letters[0].Attempts, letters[0].Error)
	// Output: greeter after 1 attempt: nobody has no name
}

// For an index the newest is what matters: the events after a dead one do not wait for it.
func ExampleOnDead() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "index", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		if e.Data.Name == "" {
			return outbox.Permanent(errors.New("nobody has no name"))
		}
		fmt.Println("indexed", e.Data.Name)
		return nil
	}, outbox.On("user.*"), outbox.OnDead(outbox.Skip))
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx,
			outbox.Event{Type: "user.renamed", Key: "user-1", Data: User{}},
			outbox.Event{Type: "user.renamed", Key: "user-1", Data: User{"Ada"}})
		return err
	}))
	work(pool, reg)
	// Output: indexed Ada
}

// Version 1 had two names. The handler only ever sees version 2.
func ExampleUpcast() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	type userV1 struct{ First, Last string }
	reg := outbox.NewRegistry()
	outbox.Upcast(reg, "user.signed_up", 1, func(u userV1) (User, error) {
		return User{strings.TrimSpace(u.First + " " + u.Last)}, nil
	})
	outbox.Handle(reg, "greeter", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Printf("version %d: %s\n", e.SchemaVersion, e.Data.Name)
		return nil
	}, outbox.On("user.signed_up"))
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(ctx, tx,
			outbox.Event{Type: "user.signed_up", Key: "user-1", Data: userV1{"Ada", "Lovelace"}},
			outbox.Event{Type: "user.signed_up", Key: "user-1", Data: User{"Grace Hopper"}, SchemaVersion: 2})
		return err
	}))
	work(pool, reg)
	// Output:
	// version 2: Ada Lovelace
	// version 2: Grace Hopper
}

// A consumer that is new today can begin with what the log still holds.
func ExampleStartFrom() {
	pool, end := database()
	defer end()
	signUp(pool, "Ada")
	work(pool, outbox.NewRegistry()) // the event is in the log, and nobody was there to hear of it

	reg := outbox.NewRegistry()
	outbox.Handle(reg, "directory", func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Println("listed", e.Data.Name)
		return nil
	}, outbox.On("user.signed_up"), outbox.StartFrom(outbox.Beginning))
	work(pool, reg)
	// Output: listed Ada
}

// Under its new name the consumer goes on from where it was under the old one.
func ExampleFormerly() {
	pool, end := database()
	defer end()
	list := func(_ context.Context, _ pgx.Tx, e outbox.Received[User]) error {
		fmt.Println(e.Consumer, "lists", e.Data.Name)
		return nil
	}
	before := outbox.NewRegistry()
	outbox.Handle(before, "phone-book", list, outbox.On("user.signed_up"))
	signUp(pool, "Ada")
	work(pool, before)

	after := outbox.NewRegistry()
	outbox.Handle(after, "directory", list, outbox.On("user.signed_up"), outbox.Formerly("phone-book"))
	signUp(pool, "Grace")
	work(pool, after)
	// Output:
	// phone-book lists Ada
	// directory lists Grace
}

// A reminder is appended with what it may have to remind of, and taken back when that is not needed any more.
func ExampleCancelScheduled() {
	ctx := context.Background()
	pool, end := database()
	defer end()

	var reminder uuid.UUID
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) (err error) {
		reminder, err = outbox.Append(ctx, tx, outbox.Event{
			Type: "trial.ends_soon", Key: "user-1", Data: User{"Ada"}, NotBefore: time.Now().AddDate(0, 0, 11),
		})
		return err
	}))
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		cancelled, err := outbox.CancelScheduled(ctx, tx, reminder)
		fmt.Println(len(cancelled), "cancelled")
		return err
	}))
	// Output: 1 cancelled
}

// Who has written an event can wait for what follows from it.
func ExampleWait() {
	pool, end := database()
	defer end()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "billing", func(context.Context, pgx.Tx, outbox.Received[User]) error { return nil }, outbox.On("user.*"))
	outbox.Handle(reg, "greeter", func(context.Context, pgx.Tx, outbox.Received[User]) error {
		return outbox.Permanent(errors.New("the mail server is gone"))
	}, outbox.On("user.*"))
	id := signUp(pool, "Ada")
	work(pool, reg) // in the program: workers, of this process or another

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	fmt.Println(outbox.Wait(ctx, pool, id, "billing"))
	var never *outbox.NotProcessedError
	fmt.Println(errors.As(outbox.Wait(ctx, pool, id, "billing", "greeter"), &never), never.Consumer, never.State)
	// Output:
	// <nil>
	// true greeter dead
}

// A program's consumers as a test wants them: each attempt at once, and not many of them.
func ExampleRegistry_With() {
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "greeter", func(context.Context, pgx.Tx, outbox.Received[User]) error { return nil }, outbox.On("user.*"))
	quick := reg.With(outbox.Backoff(0, 0), outbox.MaxAttempts(2))
	fmt.Println(quick.Consumer("greeter").MaxAttempts, reg.Consumer("greeter").MaxAttempts)
	// Output: 2 0
}
