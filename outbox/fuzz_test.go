package outbox_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	infinity = 1<<63 - 1
	year     = 31_556_952_000_000 // in microseconds
)

// FuzzAppend: what Append takes, the tables take, and it arrives as it was given; what it refuses, it refuses by the field's
// name and leaves the transaction as it was.
func FuzzAppend(f *testing.F) {
	type seed struct {
		eventType, key, data, correlation, trace, source string
		version                                          int
		due                                              int64
		zone                                             int
		blocks                                           bool
	}
	for _, s := range []seed{
		{eventType: "note.taken", key: "k", data: `{"n": 7}`, correlation: "c", trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		{eventType: "note.taken", key: "\x00", data: `7`},
		{eventType: "note.taken", key: "\xff", data: `"\u0000"`},
		{eventType: "note.taken\n", key: "k", data: `null`},
		{eventType: "a..b", key: strings.Repeat("ü", 128), data: ` [ 1e131071 , 1E-16383 ] `},
		{eventType: strings.Repeat("t", 128), key: "k", data: `{"n": 1, "n": "1"}`},
		{eventType: "t", key: "k\n\u202e", data: `"\ud83d\ude00\ud83d"`, correlation: "a b"},
		{eventType: "t", key: strings.Repeat("k", 255), data: nested(1000), correlation: strings.Repeat("c", 128), source: strings.Repeat("s", 127)},
		{eventType: "t", key: "k", data: nested(10_000), correlation: strings.Repeat("c", 129)},
		{eventType: "t", key: "k", data: sized(outbox.MaxDataBytes), version: 32_767},
		{eventType: "t", key: "k", data: sized(outbox.MaxDataBytes + 1), version: 32_768},
		{eventType: "t", key: "k", data: `1`, source: "\xc0\x80", version: -1},
		{eventType: "t", key: "k", data: `1`, due: 100 * year},
		{eventType: "t", key: "k", data: `1`, due: 100 * year, blocks: true},
		{eventType: "t", key: "k", data: `1`, due: 8000*year + 3_600_000_000, zone: -43_200},
		{eventType: "t", key: "k", data: `1`, due: -1 << 62},
		{eventType: "t", key: "k", data: `1`, due: infinity},
	} {
		f.Add(s.eventType, s.key, []byte(s.data), s.correlation, s.trace, s.source, s.version, s.due, s.zone, s.blocks)
	}
	again := newFuzzRig(f)
	f.Fuzz(func(t *testing.T, eventType, key string, data []byte, correlation, trace, source string, version int, due int64, zone int, blocks bool) {
		r := again(t)
		e := outbox.Event{
			Type: eventType, Key: key, Data: json.RawMessage(data), CorrelationID: correlation, TraceParent: trace, Source: source,
			SchemaVersion: version, Blocks: blocks,
		}
		if at, ok := moment(due); ok && at.Valid {
			e.NotBefore = at.Time.In(time.FixedZone("", zone%86_400))
		}
		id, err := r.land(key, func(tx pgx.Tx) (uuid.UUID, error) { return outbox.Append(t.Context(), tx, e) })
		if err != nil {
			var refused *outbox.InvalidEventError
			require.ErrorAs(t, err, &refused, "refused by the table alone")
			require.Contains(t, []string{"type", "key", "data", "correlation_id", "traceparent", "source", "schema_version", "not_before"}, refused.Field)
			return
		}
		if correlation == "" {
			correlation = id.String()
		}
		r.holds(`select (e.type, e.key, e.data, e.correlation_id, coalesce(e.traceparent, ''), e.source, e.schema_version)
			= ($2::text, $3::text, $4::text::jsonb, $5::text, $6::text, $7::text, $8::int)
			from (select id, type, key, data, correlation_id, traceparent, source, schema_version from events
			      union all select id, type, key, data, correlation_id, traceparent, source, schema_version from scheduled) as e where e.id = $1`,
			id, eventType, key, string(data), correlation, trace, source, max(version, 1))
		r.follows(key)
	})
}

// FuzzSQLProducer: what a producer gets into the outbox by SQL, by outbox_append or by hand, is refused at the door or
// harms nobody: it is in the log, and at each consumer processed or a dead letter of its own key.
func FuzzSQLProducer(f *testing.F) {
	type seed struct {
		hand                                         bool
		eventType, key, data, correlation, trace, id string
		version                                      int32
		occurred, due, seq                           int64
	}
	for _, s := range []seed{
		{eventType: "note.taken", key: "k", data: `{"n": 7}`},
		{eventType: "note.taken", key: "k", data: `{"n": "seven"}`, correlation: "..", trace: "no trace\n"},
		{eventType: "note.taken", key: "k", data: `{"n": 1e400}`},
		{eventType: "note.taken", key: "k", data: nested(5000)},
		{eventType: "note.taken", key: "k", data: nested(10_000)},
		{eventType: "note.taken", key: "k", data: nested(10_001)},
		{eventType: "note.taken", key: "k", data: nested(10_001), due: 100 * year},
		{eventType: "note.taken", key: "k", data: sized(outbox.MaxDataBytes)},
		{eventType: "note.taken", key: "k", data: sized(outbox.MaxDataBytes + 1)},
		{eventType: "note.taken", key: "k\r\n\u202e%_\\", data: `[1e131071, 1e-16383, -0]`},
		{eventType: "*", key: "\xff", data: `"\u0000"`},
		{eventType: "a.*", key: "", data: `{`},
		{eventType: "note.taken", key: "k", data: `1`, due: infinity},
		{eventType: "note.taken", key: "k", data: `1`, due: -1 << 63},
		{eventType: "note.taken", key: "k", data: `1`, due: 9000 * year},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, id: "0123456789abcdef"},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, id: strings.Repeat("\x00", 16)},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, id: strings.Repeat("\xff", 16)},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, occurred: infinity},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, occurred: -1 << 63},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, occurred: 9000 * year},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, occurred: -3000 * year},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, due: infinity},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, due: 100 * year},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, due: 9000 * year},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 32_768, seq: 7},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, seq: -1},
		{hand: true, eventType: "note.taken", key: "k", data: `{"n": 7}`, version: 1, seq: infinity},
	} {
		f.Add(s.hand, s.eventType, s.key, s.data, s.correlation, s.trace, []byte(s.id), s.version, s.occurred, s.due, s.seq)
	}
	again := newFuzzRig(f)
	f.Fuzz(func(t *testing.T, hand bool, eventType, key, data, correlation, trace string, id []byte, version int32, occurred, due, seq int64) {
		r := again(t)
		at, ok := moment(occurred)
		notBefore, also := moment(due)
		if !ok || !also {
			return
		}
		landed, err := r.land(key, func(tx pgx.Tx) (event uuid.UUID, err error) {
			err = pgx.BeginFunc(t.Context(), tx, func(tx pgx.Tx) error { // a savepoint
				if !hand {
					return tx.QueryRow(t.Context(), `select outbox_append($1, $2, $3::text::jsonb, nullif($4, ''), null, nullif($5, ''), $6)`,
						eventType, key, data, correlation, trace, notBefore).Scan(&event)
				}
				if event, err = uuid.FromBytes(id); err != nil {
					event = uuid.Must(uuid.NewV7())
				}
				_, err := tx.Exec(t.Context(), `insert into outbox (seq, id, type, key, data, correlation_id, causation_id, traceparent, source,
						schema_version, occurred_at, not_before) overriding system value
					values (coalesce(nullif($1::bigint, 0), nextval(pg_get_serial_sequence('outbox', 'seq'))), $2, $3, $4, $5::text::jsonb,
						coalesce(nullif($6, ''), 'c'), $2, nullif($7, ''), $7, $8, coalesce($9, clock_timestamp()), $10)`,
					seq, event, eventType, key, data, correlation, trace, version, at, notBefore)
				return err
			})
			return event, err
		})
		if err != nil {
			var refused *pgconn.PgError
			require.ErrorAs(t, err, &refused)
			require.Contains(t, []string{"22", "23", "54"}, refused.Code[:2], refused.Message)
			return
		}
		require.True(t, json.Valid([]byte(data)), "the server takes what no consumer can read")
		r.holds(`select exists (select from (select id, type, key, data from events union all select id, type, key, data from scheduled) as e
			where (e.id, e.type, e.key, e.data) = ($1, $2, $3, $4::text::jsonb))`, landed, eventType, key, data)
		r.follows(key)
	})
}

// FuzzReplay: data that an operator sends in an event's place is refused by the field's name, with nothing changed, or it is what
// the consumer gets from then on; the log keeps what was written.
func FuzzReplay(f *testing.F) {
	for _, data := range []string{
		`{"n": 7}`, `null`, `{"n": "seven"}`, `"\u0000"`, `"\ud83d"`, "\xff", ``, `{`, `1e131072`, ` [1] `, nested(1001), nested(10_000), sized(outbox.MaxDataBytes + 1),
	} {
		f.Add([]byte(data), "a reason", false)
	}
	f.Add([]byte(`{"n": 7}`), " \n", true)
	again := newFuzzRig(f)
	f.Fuzz(func(t *testing.T, data []byte, reason string, force bool) {
		r := again(t)
		if !json.Valid([]byte(`"`+reason+`"`)) || strings.Contains(reason, `\`) {
			reason = "a reason"
		}
		r.inTx(func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `select outbox_append('note.taken', 'k', '{"n": "poison"}')`)
			return err
		})
		r.carry()
		letter := one[int64](r, `select id from discarded_jobs where consumer = 'one'`)
		const state = `select (select count(*) from event_edits) || ' ' || (select count(*) from audit) || ' ' || (select count(*) from river_job)
			|| ' ' || (select count(*) from discarded_jobs where state = 'dead')`
		before := one[string](r, state)

		data = append([]byte{}, data...) // nil would be a replay without data
		_, err := r.op.Replay(t.Context(), letter, data, outbox.Action{Actor: "anna", Reason: reason, Force: force})
		if err != nil {
			var refused *outbox.InvalidEventError
			if !errors.Is(err, outbox.ErrReasonRequired) {
				require.ErrorAs(t, err, &refused)
				require.Equal(t, "data", refused.Field)
			}
			require.Equal(t, before, one[string](r, state))
			return
		}
		r.holds(`select data = $1::text::jsonb from event_edits`, string(data))
		r.carry()
		var n note
		if json.Unmarshal(data, &n) == nil && int(int32(n.N)) == n.N {
			r.applied("one", "k", int32(n.N))
		} else {
			r.holds(`select state = 'dead' and data = $1::text::jsonb from discarded_jobs where consumer = 'one'`, string(data))
		}
		r.holds(`select data = '{"n": "poison"}' from events`)
	})
}
