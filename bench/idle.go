package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// idleConsumers is as many as the shop has.
const idleConsumers = 6

// idle measures what a service asks of the database when nothing happens: transactions as the server counts them, its own
// (autovacuum) included, and statements as they leave the service.
func idle(ctx context.Context, e *env) ([]float64, error) {
	config, err := pgxpool.ParseConfig(e.url)
	if err != nil {
		return nil, err
	}
	var statements statementCounter
	config.MaxConns, config.ConnConfig.Tracer = poolSize, &statements
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var done atomic.Int64
	w, err := newWorkers(pool, ours{style: queueing, consumers: idleConsumers}.registry(&done))
	if err != nil {
		return nil, err
	}
	if err := w.Start(ctx); err != nil {
		return nil, err
	}
	values, err := idleRates(ctx, e, &statements)
	if stopped := stopWorkers(ctx, w); err == nil {
		err = stopped
	}
	return values, err
}

func idleRates(ctx context.Context, e *env, statements *statementCounter) ([]float64, error) {
	// From another database, so that asking does not count.
	conn, err := pgx.Connect(ctx, e.server.url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only ever read
	transactions := func() (n int64, err error) {
		err = conn.QueryRow(ctx, `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1`,
			e.pool.Config().ConnConfig.Database).Scan(&n)
		return n, err
	}
	if !pause(ctx, e.size.idleSettle) {
		return nil, ctx.Err()
	}
	before, err := transactions()
	if err != nil {
		return nil, fmt.Errorf("read pg_stat_database: %w", err)
	}
	sent, begun := statements.Load(), time.Now()
	if !pause(ctx, e.size.idleSpell) {
		return nil, ctx.Err()
	}
	took := time.Since(begun).Seconds()
	sent = statements.Load() - sent
	after, err := transactions()
	if err != nil {
		return nil, fmt.Errorf("read pg_stat_database: %w", err)
	}
	return []float64{float64(after-before) / took, float64(sent) / took}, nil
}

// statementCounter counts all statements of a pool, BEGIN and COMMIT too.
type statementCounter struct{ atomic.Int64 }

func (c *statementCounter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.Add(1)
	return ctx
}

func (c *statementCounter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (c *statementCounter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	c.Add(int64(data.Batch.Len()))
	return ctx
}

func (c *statementCounter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (c *statementCounter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}
