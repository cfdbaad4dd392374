package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/workers/outboxtest"
)

func TestNotesAreCountedAndAnnounced(t *testing.T) {
	t.Parallel()
	a := app{database(t)}
	var told atomic.Int32
	reg := consumers(func(context.Context, uuid.UUID, note) error {
		if told.Add(1) == 1 {
			return errors.New("the other service is down") // once: the next attempt succeeds
		}
		return nil
	})
	require.NoError(t, a.take(t.Context(), note{"inbox", "buy milk"}))
	require.NoError(t, a.take(t.Context(), note{"inbox", "call Ada"}))

	report := outboxtest.Settle(t, a.pool, reg, outboxtest.Schema(schema))
	require.Empty(t, report.Dead)
	require.EqualValues(t, 1, report.FailedAttempts)
	require.EqualValues(t, 3, told.Load())
	counts, err := a.notebooks(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]int{"inbox": 2}, counts)
}

func TestANoteInNoNotebookIsADeadLetter(t *testing.T) {
	t.Parallel()
	a := app{database(t)}
	require.NoError(t, a.take(t.Context(), note{"ideas", "an outbox"}))
	report := outboxtest.Settle(t, a.pool, consumers(announce), outboxtest.Schema(schema))
	require.Len(t, report.Dead, 1)
	require.Equal(t, "statistics", report.Dead[0].Consumer)
	require.Equal(t, `there is no notebook "ideas"`, report.Dead[0].Error)
}

// database is a database of the test's own, with our tables, on the PostgreSQL that DATABASE_URL names.
func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	server, err := url.Parse(os.Getenv("DATABASE_URL"))
	require.NoError(t, err)
	require.NotEmpty(t, server.Host, "DATABASE_URL must name a PostgreSQL on which the tests may create databases")
	name := "notes_test_" + strings.ToLower(rand.Text())
	ctx := context.WithoutCancel(t.Context()) // a Cleanup runs when the test's context has ended
	conn, err := pgx.Connect(ctx, server.String())
	require.NoError(t, err)
	_, err = conn.Exec(ctx, `CREATE DATABASE `+name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := conn.Exec(ctx, `DROP DATABASE `+name+` WITH (FORCE)`)
		require.NoError(t, errors.Join(err, conn.Close(ctx)))
	})
	own := *server
	own.Path = "/" + name
	pool, err := open(ctx, own.String())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}
