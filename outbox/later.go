package outbox

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Later returns tx with an Exec that waits for no answer: in the transaction of InTx the statement travels with the one that
// comes next, or with the commit, and saves its round trip; a handler's goes on its Batch. Order is kept, and so is
// everything else of tx. The tag that Exec returns is empty, and an error of the statement is that of the next one, or of
// InTx, or the handler's own: use it where no answer is needed, as for an INSERT that is not expected to fail, or for generated
// queries that return nothing.
//
//	outbox.Later(tx).Exec(ctx, "INSERT INTO notes (id, text) VALUES ($1, $2)", id, text)
//
// It must be a single statement. One without arguments, and any in another transaction or once a savepoint was opened, is sent at
// once.
func Later(tx pgx.Tx) pgx.Tx {
	switch tx := tx.(type) {
	case *producerTx:
		return laterTx{tx, tx.later}
	case *handlerTx:
		return laterTx{tx, tx.later}
	}
	return tx
}

// laterTx is a transaction whose Exec leaves the statement to keep, if that takes it.
type laterTx struct {
	pgx.Tx
	keep func(sql string, args []any) bool
}

func (t laterTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if t.keep(sql, args) {
		return pgconn.CommandTag{}, nil
	}
	return t.Tx.Exec(ctx, sql, args...)
}
