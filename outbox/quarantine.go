package outbox

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// moveError is the failure of the statement that moves rows; seq names the row where it was to move but one.
type moveError struct {
	seq int64
	err error
}

func (e *moveError) Error() string { return "move rows to the log: " + e.err.Error() }
func (e *moveError) Unwrap() error { return e.err }

// refusesData reports whether the log refused what is in a row. That a table is not as it should be, as when a
// partition is missing, is no fault of a row.
func (e *moveError) refusesData() bool {
	var pg *pgconn.PgError
	if !errors.As(e.err, &pg) {
		return false
	}
	switch pg.Code[:2] {
	case "22", "54":
		return true
	case "23":
		return pg.Code != "23514" || pg.ConstraintName != ""
	}
	return pg.Code == "P0001" // a trigger of somebody's
}

// refusedBatch answers a batch that failed. The next one is half of it: that may be what the server can bear. When the
// log refuses it for its data, that narrows it down to a row, which is set aside in the end: one row that cannot be
// stored must not stop all the others. Any other error is returned as it is.
func (r *relay) refusedBatch(ctx context.Context, cause error) error {
	var move *moveError
	data := errors.As(cause, &move) && move.refusesData()
	if r.batch > 1 {
		r.batch /= 2
		if data {
			return nil
		}
	}
	if !data || move.seq == 0 {
		return cause
	}
	err := r.inTx(ctx, func(tx pgx.Tx) error {
		db := r.db(tx)
		if err := r.q.RelayLock(ctx, db); err != nil {
			return err
		}
		state, err := r.q.RelayStateGet(ctx, db, &r.token)
		if err != nil {
			return err
		} else if !state.Leads {
			return errLostLead
		}
		row, err := r.q.RelayQuarantineRow(ctx, db, outboxdb.RelayQuarantineRowParams{Seq: move.seq, Error: scrub(move.err.Error())})
		if err != nil {
			return err
		}
		r.log.ErrorContext(r.inTrace(ctx, row.Traceparent), "relay: row set aside in quarantine: the log refuses it", "event_id", row.ID, "seq", row.Seq,
			"correlation_id", row.CorrelationID, "error", cause)
		failpoint.At(failpoint.RelayQuarantine)
		return nil
	})
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	r.quarant = true
	return nil
}
