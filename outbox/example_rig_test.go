package outbox_test

import (
	"context"
	"fmt"
	"testing"

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

// database is a migrated database of an example's own, until end.
func database() (pool *pgxpool.Pool, end func()) {
	tb := &exampleTB{}
	pool = testdb.Pool(tb)
	return pool, func() {
		for i := len(tb.ends) - 1; i >= 0; i-- {
			tb.ends[i]()
		}
	}
}

// work runs the consumers until all is quiet, with attempts that follow each other at once.
func work(pool *pgxpool.Pool, reg *outbox.Registry) { outboxtest.Settle(&exampleTB{}, pool, reg) }

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
