package outbox_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
	"github.com/pgoutbox/pgoutbox/workers/outboxtest"
)

// exampleTB is what helpers for tests need of one, in an example, which has none.
type exampleTB struct {
	testing.TB
	ends []func()
}

func (*exampleTB) Helper() {}

func (*exampleTB) Log(...any) {}

func (*exampleTB) Context() context.Context { return context.Background() }

func (tb *exampleTB) Cleanup(end func()) { tb.ends = append(tb.ends, end) }

func (*exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (*exampleTB) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// database is a migrated database of an example's own, with what more it needs, until end.
func database(more ...string) (pool *pgxpool.Pool, end func()) {
	tb := &exampleTB{}
	pool = testdb.Pool(tb)
	for _, sql := range more {
		_, err := pool.Exec(context.Background(), sql)
		must(err)
	}
	return pool, func() {
		for i := len(tb.ends) - 1; i >= 0; i-- {
			tb.ends[i]()
		}
	}
}

// work runs the consumers until all is quiet, with attempts that follow each other at once.
func work(pool *pgxpool.Pool, reg *outbox.Registry) { outboxtest.Settle(&exampleTB{}, pool, reg) }

// signUp appends user.signed_up for user-1, user-2 and so on, and returns the first event's id.
func signUp(pool *pgxpool.Pool, names ...string) (first uuid.UUID) {
	ctx := context.Background()
	events := make([]outbox.Event, len(names))
	for i, name := range names {
		events[i] = outbox.Event{Type: "user.signed_up", Key: fmt.Sprint("user-", i+1), Data: User{name}}
	}
	must(outbox.InTx(ctx, pool, func(tx pgx.Tx) error {
		ids, err := outbox.AppendAll(ctx, tx, events...)
		first = ids[0]
		return err
	}))
	return first
}

// show prints the one text that a query gives.
func show(pool *pgxpool.Pool, query string) {
	var text string
	must(pool.QueryRow(context.Background(), query).Scan(&text))
	fmt.Println(text)
}

// exampleOperator is an operator on the tables of pool.
func exampleOperator(pool *pgxpool.Pool) *outbox.Operator {
	jobs, err := workers.NewJobs(pool, "")
	must(err)
	return outbox.NewOperator(pool, jobs, "", nil)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
