package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/internal/outboxdb"
)

// rehearsalMost is how many changed rows of a table are looked at: the others are counted as the server counts.
const rehearsalMost = 10000

// bounds finds between which transaction ids those of the transaction lie: savepoints have ids of their own. A transaction that
// begins now is beyond them all.
func (r *rehearsal) bounds(ctx context.Context, tx pgx.Tx, outside *pgxpool.Conn) error {
	own, err := r.q.RelayOwnID(ctx, r.schema.on(tx))
	if err != nil || own == 0 { // it has written nothing
		return err
	}
	var beyond int64
	if err := outside.QueryRow(ctx, `select pg_current_xact_id()::text::bigint`).Scan(&beyond); err != nil {
		return err
	}
	r.low, r.span = own, beyond-own
	return nil
}

// The names of tables are not known beforehand, and nothing else about these statements is: they are not among the generated ones.
// A transaction id in a row has lost its upper half, which is that of the lower bound.
const (
	// What is visible to the transaction and was written by one in progress, it wrote itself.
	rowsWritten = `select c.place, c.key, case when octet_length(c.body) <= %[3]d then c.body end, c.body is not null from (
		select t.ctid::text as place, %[2]s as key, case when row_number() over () <= $4::bigint then row_to_json(t)::text end as body
		  from only %[1]s t
		 where case when (t.xmin::text::bigint - $1::bigint %% 4294967296 + 4294967296) %% 4294967296 < $2::bigint
		            then pg_xact_status(($1::bigint + (t.xmin::text::bigint - $1::bigint %% 4294967296 + 4294967296) %% 4294967296)::text::xid8) = 'in progress'
		            else false end
		 limit $3::bigint) c`
	// What others see and is marked by a transaction of that time: ours deleted or wrote over it, or locked it, or another did.
	rowsMarked = `select t.ctid::text from only %[1]s t
		where (t.xmax::text::bigint - $1::bigint %% 4294967296 + 4294967296) %% 4294967296 < $2::bigint limit $3::bigint`
	// Those of them that the transaction still sees, it did not delete or write over.
	rowsSeen = `select t.ctid::text from only %[1]s t where t.ctid = any ($1::text[]::tid[])`
	// Those that others still see after that, no other one did.
	rowsBefore = `select t.ctid::text, %[2]s from only %[1]s t where t.ctid = any ($1::text[]::tid[])`
	rowsBodies = `select c.place, case when octet_length(c.body) <= %[2]d then c.body end, true from (
		select t.ctid::text as place, row_to_json(t)::text as body from only %[1]s t where t.ctid = any ($1::text[]::tid[])) c`
	rowsByKey = `select t.ctid::text, %[2]s from only %[1]s t where %[2]s = any ($1::text[])`
)

// row is a version of a row: where it is, the text of its primary key, and what is in it.
type row struct {
	place, key string
	body       *string
	read       bool // the body was read; none then was too large
}

func (r *rehearsal) table(t outboxdb.RehearsalWritesRow) (name, key string) {
	name = pgx.Identifier{t.Schema, t.Name}.Sanitize()
	if len(t.Key) == 0 {
		return name, "''"
	}
	columns := make([]string, len(t.Key))
	for i, c := range t.Key {
		columns[i] = "t." + pgx.Identifier{c}.Sanitize()
	}
	return name, "jsonb_build_array(" + strings.Join(columns, ", ") + ")::text"
}

// changes adds what was done to a table. Where its rows cannot be read, that is said, and no error: what was done is known in numbers.
func (r *rehearsal) changes(ctx context.Context, tx pgx.Tx, outside *pgxpool.Conn, t outboxdb.RehearsalWritesRow) {
	if t.Temporary {
		return
	}
	name := t.Root
	if t.Schema != "public" {
		name = t.Schema + "." + t.Root
	}
	counts := TableChanges{Table: name, Inserted: t.Inserts, Updated: t.Updates, Deleted: t.Deletes}
	note := ""
	switch {
	case !t.Readable:
		note = "its rows are not shown: this role may not read them"
	case t.Bytes > MaxRehearsedTable:
		note = fmt.Sprintf("its rows are not shown: a search of its %d MiB would take too long", t.Bytes>>20)
	default:
		c, err := r.compare(ctx, tx, outside, t)
		switch {
		case err != nil:
			note = "its rows could not be read in time, or from outside: they are counted as the server counts"
			if state := sqlState(err); state != "" {
				note += " (SQLSTATE " + state + ")"
			}
		case c.cut:
			note = fmt.Sprintf("more than %d rows: they are counted as the server counts", rehearsalMost)
		default:
			counts.Inserted, counts.Updated, counts.Deleted = c.inserted, c.updated, c.deleted
			if len(t.Key) == 0 && t.Updates > 0 {
				note = "it has no primary key: an updated row is shown as one that is deleted and one that is inserted"
			}
		}
		for i := range c.changes {
			c.changes[i].Table = name
		}
		r.result.Changes = append(r.result.Changes, c.changes...)
	}
	counts.Note = note
	if n := len(r.result.Tables); n > 0 && r.result.Tables[n-1].Table == name { // another partition of it
		last := &r.result.Tables[n-1]
		last.Inserted, last.Updated, last.Deleted = last.Inserted+counts.Inserted, last.Updated+counts.Updated, last.Deleted+counts.Deleted
		last.Note = cmp.Or(last.Note, counts.Note)
		return
	}
	r.result.Tables = append(r.result.Tables, counts)
}

// changed is what was done to the rows of a table.
type changed struct {
	inserted, updated, deleted int64
	changes                    []RowChange
	cut                        bool
}

// compare finds the rows that were written and those that were written over, and makes pairs of them by primary key.
func (r *rehearsal) compare(ctx context.Context, tx pgx.Tx, outside *pgxpool.Conn, t outboxdb.RehearsalWritesRow) (c changed, err error) {
	name, key := r.table(t)
	room := max(0, MaxRehearsedRows-len(r.result.Changes))
	var after []row
	var before map[string]string // key (or, without one, place) → place
	if err := r.reading(ctx, tx, func(tx pgx.Tx) (err error) {
		after, err = collect(ctx, tx, false, fmt.Sprintf(rowsWritten, name, key, MaxRehearsedBytes), r.low, r.span, rehearsalMost+1, room)
		return err
	}); err != nil {
		return c, err
	}
	err = r.reading(ctx, outside, func(out pgx.Tx) error {
		before, err = r.overwritten(ctx, tx, out, name, key, len(t.Key) > 0)
		if err != nil {
			return err
		}
		// A row that others have locked as well bears the mark of all of them together: it is found by its key.
		if len(t.Key) > 0 && int64(len(after)) > t.Inserts {
			if err := r.byKey(ctx, out, name, key, after, before); err != nil {
				return err
			}
		}
		if len(after) > rehearsalMost || len(before) > rehearsalMost {
			c.cut = true
		}
		return r.pair(ctx, out, name, after, before, room, &c)
	})
	return c, err
}

// overwritten returns the rows that others see and the transaction does not.
func (r *rehearsal) overwritten(ctx context.Context, tx, out pgx.Tx, name, key string, hasKey bool) (map[string]string, error) {
	marked, err := places(ctx, out, fmt.Sprintf(rowsMarked, name), r.low, r.span, rehearsalMost+1)
	if err != nil || len(marked) == 0 {
		return map[string]string{}, err
	}
	err = r.reading(ctx, tx, func(tx pgx.Tx) error {
		seen, err := places(ctx, tx, fmt.Sprintf(rowsSeen, name), marked)
		if err != nil {
			return err
		}
		slices.Sort(seen)
		marked = slices.DeleteFunc(marked, func(p string) bool {
			_, found := slices.BinarySearch(seen, p)
			return found
		})
		return nil
	})
	if err != nil || len(marked) == 0 {
		return map[string]string{}, err
	}
	return byPlace(ctx, out, hasKey, fmt.Sprintf(rowsBefore, name, key), marked)
}

// byKey adds the rows that others see under the keys of rows that were written.
func (r *rehearsal) byKey(ctx context.Context, out pgx.Tx, name, key string, after []row, before map[string]string) error {
	var lone []string
	for _, a := range after {
		if _, ok := before[a.key]; !ok {
			lone = append(lone, a.key)
		}
	}
	found, err := byPlace(ctx, out, true, fmt.Sprintf(rowsByKey, name, key), lone)
	for k, place := range found {
		before[k] = place
	}
	return err
}

// pair counts the changes, and shows as many as there is room for.
func (r *rehearsal) pair(ctx context.Context, out pgx.Tx, name string, after []row, before map[string]string, room int, c *changed) error {
	var wanted []string
	of := map[string]int{} // place of a version before → its change
	for _, a := range after {
		change := RowChange{Operation: "insert", TooLarge: a.read && a.body == nil}
		if a.body != nil {
			change.After = json.RawMessage(*a.body)
		}
		place, updated := before[a.key]
		if updated {
			delete(before, a.key)
			change.Operation = "update"
			c.updated++
		} else {
			c.inserted++
		}
		if len(c.changes) < room {
			if updated {
				of[place] = len(c.changes)
				wanted = append(wanted, place)
			}
			c.changes = append(c.changes, change)
		}
	}
	c.deleted = int64(len(before))
	gone := make([]string, 0, len(before))
	for _, place := range before {
		gone = append(gone, place)
	}
	slices.Sort(gone)
	for _, place := range gone[:min(len(gone), room-len(c.changes))] {
		of[place] = len(c.changes)
		wanted = append(wanted, place)
		c.changes = append(c.changes, RowChange{Operation: "delete"})
	}
	if len(wanted) == 0 {
		return nil
	}
	bodies, err := collect(ctx, out, true, fmt.Sprintf(rowsBodies, name, MaxRehearsedBytes), wanted)
	if err != nil {
		return err
	}
	for _, b := range bodies {
		change := &c.changes[of[b.place]]
		if b.body == nil {
			change.TooLarge = true
		} else {
			change.Before = json.RawMessage(*b.body)
		}
	}
	for i := range c.changes {
		if c.changes[i].TooLarge {
			c.changes[i].Before, c.changes[i].After = nil, nil
		}
	}
	return nil
}

// appendedInSQL adds the events that the handler has written into our tables itself, as by outbox_append.
func (r *rehearsal) appendedInSQL(ctx context.Context, tx pgx.Tx, t outboxdb.RehearsalWritesRow) error {
	if t.Root != "outbox" && t.Root != "scheduled" {
		return nil
	}
	name, key := r.table(t)
	return r.reading(ctx, tx, func(tx pgx.Tx) error {
		rows, err := collect(ctx, tx, false, fmt.Sprintf(rowsWritten, name, key, MaxDataBytes*2), r.low, r.span, MaxRehearsedRows, MaxRehearsedRows)
		if err != nil {
			return err
		}
		for _, w := range rows {
			var e struct {
				Type, Key string
				Data      json.RawMessage
				NotBefore *time.Time `json:"not_before"`
			}
			if w.body == nil {
				continue
			}
			if err := json.Unmarshal([]byte(*w.body), &e); err != nil {
				return fmt.Errorf("read an event that was appended: %w", err)
			}
			r.result.Events = append(r.result.Events, RehearsedEvent{e.Type, e.Key, e.Data, utc(e.NotBefore)})
		}
		return nil
	})
}

// reading runs fn in a transaction, or a savepoint of one, that waits for nobody for long, and undoes it.
func (r *rehearsal) reading(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rehearsalReads)
		defer cancel()
		_ = tx.Rollback(ctx) // where that fails, the connection is gone
	}()
	if _, err := tx.Exec(ctx, fmt.Sprintf(`set local lock_timeout = '%s'; set local statement_timeout = '%s'`,
		milliseconds(rehearsalLocks), milliseconds(rehearsalReads))); err != nil {
		return err
	}
	return fn(tx)
}

// collect reads rows of place, key (unless bare) and body.
func collect(ctx context.Context, tx pgx.Tx, bare bool, sql string, args ...any) ([]row, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(from pgx.CollectableRow) (r row, err error) {
		if bare {
			return r, from.Scan(&r.place, &r.body, &r.read)
		}
		return r, from.Scan(&r.place, &r.key, &r.body, &r.read)
	})
}

func places(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// byPlace reads places and keys; without keys, each place is its own.
func byPlace(ctx context.Context, tx pgx.Tx, hasKey bool, sql string, args ...any) (map[string]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	var place, key string
	_, err = pgx.ForEachRow(rows, []any{&place, &key}, func() error {
		if !hasKey {
			key = place
		}
		found[key] = place
		return nil
	})
	return found, err
}
