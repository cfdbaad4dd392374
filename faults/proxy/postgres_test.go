package proxy_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// The client gets an error, and the row is there: in a transaction of single statements and in a pipelined one.
func TestCutAfterCommit(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	direct := d.table(t)

	d.CutAfterCommit(1)
	conn := d.connect(t)
	if err := exec(t, conn, `INSERT INTO t VALUES (1)`); err != nil {
		t.Errorf("there was no COMMIT to answer: %v", err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO t VALUES ($1)`, 2); err != nil {
		t.Fatal(err)
	}
	mustBeCut(t, tx.Commit(t.Context()))
	if n := count(t, direct); n != 2 {
		t.Errorf("%d rows: it was not committed", n)
	}

	conn = d.connect(t)
	mustExec(t, conn, `BEGIN; INSERT INTO t VALUES (3)`)
	mustBeUnknown(t, conn.PgConn().ExecParams(t.Context(), `COMMIT`, nil, nil, nil, nil).Read().Err)
	if n := count(t, direct); n != 3 {
		t.Errorf("%d rows: it was not committed", n)
	}

	conn = d.connect(t)
	batch := &pgx.Batch{}
	for _, sql := range []string{`BEGIN`, `INSERT INTO t VALUES (4)`, `COMMIT`} {
		batch.Queue(sql)
	}
	mustBeUnknown(t, conn.SendBatch(t.Context(), batch).Close())
	if n := count(t, direct); n != 4 {
		t.Errorf("%d rows: it was not committed", n)
	}

	// A transaction that has failed is answered with ROLLBACK, which is no commit.
	conn = d.connect(t)
	if tx, err = conn.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT 1/0`); err == nil {
		t.Error("1/0")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Errorf("rollback: %v", err)
	}
	mustExec(t, conn, `BEGIN; ROLLBACK`)
	d.CutAfterCommit(0)
	mustExec(t, conn, `BEGIN; INSERT INTO t VALUES (5); COMMIT`)
	if s := d.Stats(); s.Commits != 3 || s.Cut != 3 {
		t.Errorf("%+v", s)
	}
}

func TestCutNextCommits(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	direct := d.table(t)
	d.CutNextCommits(2)
	for i := range 4 {
		err := exec(t, d.connect(t), `BEGIN; INSERT INTO t VALUES (1); COMMIT`)
		if i < 2 {
			mustBeCut(t, err)
		} else if err != nil {
			t.Errorf("commit %d: %v", i+1, err)
		}
	}
	if n := count(t, direct); n != 4 {
		t.Errorf("%d rows", n)
	}
}

func TestSwallowNotifications(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	listener, notifier := d.connect(t), d.connect(t)
	mustExec(t, listener, `LISTEN c`)

	d.SwallowNotifications(true)
	for range 3 {
		mustExec(t, notifier, `NOTIFY c, 'swallowed'`)
	}
	// The notifications come before the answer to the next query at the latest.
	var n int
	if err := listener.QueryRow(t.Context(), `SELECT 42`).Scan(&n); err != nil || n != 42 {
		t.Errorf("%d, %v", n, err)
	}
	mustExec(t, listener, `SELECT 1`)
	eventually(t, "three are swallowed", func() bool { return d.Stats().Notifications == 3 })

	d.SwallowNotifications(false)
	mustExec(t, notifier, `NOTIFY c, 'passes'`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := listener.WaitForNotification(ctx)
	if err != nil || got.Payload != "passes" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCutListeners(t *testing.T) {
	t.Parallel()
	d := startDatabase(t, 1)
	other, simple, extended := d.connect(t), d.connect(t), d.connect(t)
	mustExec(t, other, `SELECT 'listen'`)
	mustExec(t, simple, "SELECT 1; -- a comment\n listen c")
	if _, err := extended.Prepare(t.Context(), "s", `LISTEN c`); err != nil {
		t.Fatal(err)
	}
	if n := d.CutListeners(); n != 2 {
		t.Errorf("%d were cut", n)
	}
	mustBeCut(t, exec(t, simple, `SELECT 1`))
	mustBeCut(t, exec(t, extended, `SELECT 1`))
	mustExec(t, other, `SELECT 1`)
}
