package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/testdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// plantLetters plants events 1 to n with a dead letter each, of keys of their own.
func plantLetters(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	for _, sql := range []string{
		`insert into consumers (name, kind) values ('billing', 'tx')`,
		`insert into cursors (consumer, lane, pos) select 'billing', n, 100 from generate_series(0, 63) n`,
		`insert into events (pos, seq, id, type, key, lane, data, correlation_id, source, schema_version, occurred_at)
		 select i, i, gen_random_uuid(), 'user.signed_up', 'k' || i, hashtextextended('k' || i, 0) & 63, jsonb_build_object('n', i), 'corr-' || i, '', 1, now()
		   from generate_series(1, $1) i`,
		`insert into holds (consumer, event_id, key, lane, pos, reason, attempts, job_id) select 'billing', id, key, lane, pos, 'failed', 3, pos from events where $1 > 0`,
		`insert into delivery_log (consumer, event_id, attempt, outcome, error) select 'billing', id, 3, 'failed', E'no account for \x1b[31m' || pos || E'\nat line 7' from events where $1 > 0`,
		`select outbox_bury('billing', id, pos, null) from events where $1 > 0 order by pos`,
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{n}
		}
		_, err := pool.Exec(t.Context(), sql, args...)
		require.NoError(t, err, sql)
	}
}

// items are those of the list that a command answers in JSON.
func items[T any](t *testing.T, url string, args ...string) []T {
	t.Helper()
	code, out, said := command(t, url, args...)
	require.Equal(t, 0, code, said)
	var list handlers.List[T]
	require.NoError(t, json.Unmarshal([]byte(out), &list), out)
	return list.Items
}

// TestDLQ: what an operator does with dead letters from the command line.
func TestDLQ(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()
	plantLetters(t, pool, 3)

	code, out, said := command(t, url, "dlq")
	require.Equal(t, 0, code, said)
	require.Equal(t, 4, strings.Count(out, "\n"))
	require.Regexp(t, `(?m)^ID +DISCARDED +CONSUMER`, out)
	require.NotContains(t, out, "\x1b", "what an error holds is not the terminal's business")
	require.NotContains(t, out, "line 7")
	_, out, _ = command(t, url, "dlq", "ls", "--limit=1", "--consumer=billing", "--error=NO ACCOUNT", "--since=2020-01-01T00:00:00Z")
	require.Contains(t, out, "… and more")
	letter := items[outbox.LetterSummary](t, url, "dlq", "ls", "--json", "--key=k2")[0]
	require.Equal(t, "k2", letter.Key)
	require.EqualValues(t, 3, items[outbox.ConsumerStatus](t, url, "consumers", "--json")[0].Dead)
	_, out, _ = command(t, url, "consumers")
	require.Regexp(t, `(?m)^billing +tx +0 +0s +0 +3 +0 +3$`, out)
	_, out, _ = command(t, url, "dlq", "groups")
	require.Regexp(t, `(?m)^3 +billing +user.signed_up .* 3 +`+letter.Fingerprint+` +no account for`, out)
	require.Len(t, items[outbox.LetterSummary](t, url, "dlq", "ls", "--json", "--fingerprint", letter.Fingerprint), 3)

	_, out, _ = command(t, url, "dlq", "show", "2")
	require.Contains(t, out, `data: {"n": 2}`)
	require.Contains(t, out, "\n  at line 7\n")
	require.NotContains(t, out, "\x1b")
	_, out, _ = command(t, url, "trace", "corr-2")
	require.Contains(t, out, "no account for")
	require.NotContains(t, out, "\x1b")
	code, _, said = command(t, url, "dlq", "show", "9")
	require.Equal(t, 1, code)
	require.Contains(t, said, "no such dead letter")

	code, _, said = command(t, url, "dlq", "dismiss", "1")
	require.Equal(t, 2, code)
	require.Contains(t, said, "--reason is required")
	code, out, said = command(t, url, "dlq", "dismiss", "1", "--reason=a test", "--actor=anna")
	require.Equal(t, 0, code, said)
	require.Contains(t, out, "dead letter 1 is dismissed; 0 events")

	code, out, said = command(t, url, "dlq", "rehearse", "2", "--actor=anna")
	require.Equal(t, 1, code, said)
	require.Contains(t, out, "dead letter 2 of billing, which is dead: fails")
	code, out, _ = command(t, url, "dlq", "rehearse", "2", "--actor=anna", "--json")
	require.Equal(t, 1, code)
	var rehearsal outbox.Rehearsal
	require.NoError(t, json.Unmarshal([]byte(out), &rehearsal))
	require.Equal(t, outbox.Fails, rehearsal.Outcome)
	code, _, said = command(t, url, "dlq", "rehearse", "9")
	require.Equal(t, 1, code, said)

	data := filepath.Join(t.TempDir(), "data.json")
	require.NoError(t, os.WriteFile(data, []byte(`{"n": 20}`), 0o600))
	code, _, said = command(t, url, "dlq", "replay", "2", "--data", data, "--reason=it was another", "--actor=anna")
	require.Equal(t, 1, code)
	require.Contains(t, said, "data/n is not a field that the code knows")
	code, out, said = command(t, url, "dlq", "replay", "2", "--data", data, "--reason=it was another", "--actor=anna", "--force")
	require.Equal(t, 0, code, said)
	require.Contains(t, out, "replace /n 2 → 20\nwhether the consumer's code takes the data was not checked")
	require.Contains(t, out, "dead letter 2 is being replayed by job ")
	code, _, said = command(t, url, "dlq", "replay", "2")
	require.Equal(t, 1, code)
	require.Contains(t, said, "has the unfinished job ")
	code, _, said = command(t, url, "dlq", "replay", "--consumer=billing", "--reason=again")
	require.Equal(t, 2, code)
	require.Contains(t, said, "give --yes")
	code, _, said = command(t, url, "dlq", "replay", "--consumer=nobody", "--reason=again", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, said, "nothing to replay")
	code, _, said = command(t, url, "dlq", "replay", "--all", "--yes")
	require.Equal(t, 2, code)
	require.Contains(t, said, "--reason is required")
	code, out, said = command(t, url, "dlq", "replay", "--key=k3", "--reason=again", "--actor=anna", "--yes", "--detach", "--json")
	require.Equal(t, 0, code, said)
	var op outbox.OperationDetail
	require.NoError(t, json.Unmarshal([]byte(out), &op))
	require.Equal(t, [2]any{"canary", int64(1)}, [2]any{op.State, op.Total})
	id := strconv.FormatInt(op.ID, 10)
	_, out, _ = command(t, url, "operations")
	require.Regexp(t, `(?m)^`+id+` .* replay +canary +1 +0 +0 +0 +0 +anna +again$`, out)
	code, out, said = command(t, url, "operations", "stop", id, "--reason=not today", "--actor=anna")
	require.Equal(t, 0, code, said)
	require.Contains(t, out, "0 of 1 letters were replayed")
	_, out, _ = command(t, url, "operations", "show", id)
	require.Contains(t, out, "stopped: by anna: not today")
	_, out, _ = command(t, url, "audit", "--action=stop")
	require.Regexp(t, `(?m)anna +stop +operation `+id+` +not today$`, out)
	require.Len(t, items[outbox.AuditEntry](t, url, "audit", "--by=anna", "--json"), 6)
	_, out, _ = command(t, url, "dlq", "show", "2")
	require.Contains(t, out, "edited by anna at ")
	var kept string
	require.NoError(t, pool.QueryRow(t.Context(), `select string_agg(actor || ' ' || action || ' ' || reason, ', ' order by id) from audit`).Scan(&kept))
	require.Equal(t, "anna dismiss a test, anna rehearse , anna rehearse , anna replay it was another, anna replay all again, anna stop not today", kept)

	for _, args := range [][]string{
		{"dlq", "ls", "--state=gone"},
		{"dlq", "ls", "--since=yesterday"},
		{"dlq", "show", "x"},
		{"dlq", "replay", "1", "--data=/nowhere"},
		{"dlq", "replay"},
		{"dlq", "replay", "1", "--all"},
	} {
		code, _, _ = command(t, url, args...)
		require.Equal(t, 2, code, args)
	}
}

// TestDLQRedacts: a person's data goes from the command line.
func TestDLQRedacts(t *testing.T) {
	t.Parallel()
	pool := testdb.Pool(t)
	url := pool.Config().ConnString()
	plantLetters(t, pool, 1)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"1", "--reason=asked"}, 2, "give --pointer, --errors or --reasons"},
		{[]string{"--errors", "--reason=asked"}, 2, "expected \"<id>\""},
		{[]string{"1", "--errors"}, 2, "--reason is required"},
		{[]string{"1", "--pointer=n", "--reason=asked"}, 1, "pointers/0 must be a JSON pointer"},
		{[]string{"1", "--pointer=/n", "--pointer=/a,b", "--reason=asked"}, 1, "pointers/1 leads nowhere"},
		{[]string{"1", "--pointer=/n", "--reason=asked"}, 1, "is dead, and its data is still needed"},
		{[]string{"9", "--errors", "--reason=asked"}, 1, "no such dead letter"},
	} {
		code, _, said := command(t, url, append([]string{"dlq", "redact"}, c.args...)...)
		require.Equal(t, c.code, code, "%v: %s", c.args, said)
		require.Contains(t, said, c.says)
	}
	code, _, said := command(t, url, "dlq", "dismiss", "1", "--reason=bert's", "--actor=bert")
	require.Equal(t, 0, code, said)
	code, out, said := command(t, url, "dlq", "redact", "1", "--pointer=/n", "--errors", "--reasons", "--reason=asked", "--actor=anna")
	require.Equal(t, 0, code, said)
	require.Regexp(t, `^dead letter 1: redacted 1 values, \d errors and \d reasons`, out)
	code, out, said = command(t, url, "dlq", "redact", "1", "--errors", "--reason=asked", "--actor=anna", "--json")
	require.Equal(t, 0, code, said)
	require.JSONEq(t, `{"id": 1, "values": 0, "errors": 0, "reasons": 0}`, out)
	_, out, _ = command(t, url, "dlq", "show", "1")
	require.Contains(t, out, `data: {"n": "[redacted]"}`)
	require.NotContains(t, out, "no account")
	_, out, _ = command(t, url, "audit")
	require.Regexp(t, `(?m)bert +dismiss +dead letter 1 +\[redacted\]$`, out)
	require.Regexp(t, `(?m)anna +redact +dead letter 1 +asked$`, out)
}
