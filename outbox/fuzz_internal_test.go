package outbox

import (
	"encoding/json"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// FuzzRefusedData: data that is let through is jsonb to the server and no longer there than the outbox takes, and what is
// refused for its form, the server refuses too.
func FuzzRefusedData(f *testing.F) {
	for _, data := range []string{
		`{"a" : [1, 2.50, -0, 1E5]}`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\u0000"`, `"\\u0000"`, `"\u001f\u007f\/"`, "\"\xed\xa0\x80\"", "\"\x7f\"", ``, `01`,
		`1e131071`, `1e131072`, `1e-16383`, `1e-16384`, `0e99999999`, `-0.1e-16382`, `1e999999999999999999999`, "\ufeff1", `"` + "\t" + `"`, `{"a":1,"a":2}`,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000), strings.Repeat(`{"":`, 1001) + `1` + strings.Repeat("}", 1001), `[1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071,1e131071]`,
	} {
		f.Add([]byte(data))
	}
	pool := testdb.Pool(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		reason := refusedData(data)
		var size int
		err := pool.QueryRow(t.Context(), `select octet_length($1::text::jsonb::text)`, string(data)).Scan(&size)
		switch {
		case reason == "":
			require.NoError(t, err)
			require.LessOrEqual(t, size, MaxDataBytes)
		case strings.Contains(reason, "numeric"), strings.Contains(reason, "nest"), strings.Contains(reason, "1 MiB"):
			// More than is needed is refused here: zeros with great exponents, and what the server's stack may bear.
		default:
			require.NotEmpty(t, sqlState(err), reason)
		}
	})
}

// FuzzScrub: whatever an error says can be stored as text and as jsonb, and is short.
func FuzzScrub(f *testing.F) {
	for _, s := range []string{"", "a\x00b", "\xff\xfe", "\xed\xa0\x80", strings.Repeat("ü", 4000), strings.Repeat("x", 3999) + "ü", strings.Repeat("\x00", 5000), "\ufffd\u202e"} {
		f.Add(s)
	}
	pool := testdb.Pool(f)
	f.Fuzz(func(t *testing.T, s string) {
		scrubbed := scrub(s)
		require.LessOrEqual(t, len(scrubbed), 4020)
		if storable(s) && len(s) <= 4000 {
			require.Equal(t, s, scrubbed)
		}
		var stored string
		require.NoError(t, pool.QueryRow(t.Context(), `select jsonb_build_object('error', $1::text) ->> 'error'`, scrubbed).Scan(&stored))
		require.Equal(t, scrubbed, stored)
	})
}

// FuzzForms: what is a type, a name, a pattern or a correlation id here is one to the tables, and the other way round; and a
// pattern takes the same types in a process and in the database.
func FuzzForms(f *testing.F) {
	for _, s := range [][2]string{
		{"user.*", "user.signed_up"},
		{"user_x.*", "userax.y"},
		{"*", "a"},
		{"a", "a.b"},
		{"a.*", "a"},
		{"a.*", "a.b.*"},
		{"a.b", "a\n"},
		{"a..*", "ä"},
		{"%", "_"},
		{".*", "K\u212a"},
		{strings.Repeat("p", 127), strings.Repeat("t", 128)},
		{"billing-1_x", "-a"},
		{"a--b", "a-"},
	} {
		f.Add(s[0], s[1])
	}
	pool := testdb.Pool(f)
	var rules map[string]string
	require.NoError(f, pool.QueryRow(f.Context(), `select json_object_agg(conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid)) from pg_constraint
		where conname in ('consumers_name_check', 'consumer_subscriptions_pattern_check') and contype = 'c'`).Scan(&rules))
	require.Len(f, rules, 2)
	check := func(t *testing.T, rule, column, value string) (ok bool) {
		t.Helper()
		condition := regexp.MustCompile(`\b`+column+`\b`).ReplaceAllString(strings.TrimPrefix(rules[rule], "CHECK "), "$$1::text")
		require.NoError(t, pool.QueryRow(t.Context(), `select `+condition, value).Scan(&ok), condition)
		return ok
	}
	accepts := func(t *testing.T, eventType, correlationID string) bool {
		t.Helper()
		_, err := pool.Exec(t.Context(), `select outbox_accepts(1, $1, 'k', '1', $2, null, '', 1, now(), null)`, eventType, correlationID)
		if sqlState(err) == "23514" {
			return false
		}
		require.NoError(t, err)
		return true
	}
	f.Fuzz(func(t *testing.T, pattern, eventType string) {
		if !storable(pattern) || !storable(eventType) {
			require.False(t, patternForm.MatchString(pattern) && typeForm.MatchString(eventType))
			return
		}
		takes := func(form *regexp.Regexp, s string, most int) bool { return form.MatchString(s) && len(s) <= most }
		require.Equal(t, takes(typeForm, eventType, MaxTypeBytes), accepts(t, eventType, "c"))
		require.Equal(t, ValidCorrelationID(eventType), accepts(t, "a", eventType))
		require.Equal(t, takes(patternForm, pattern, MaxTypeBytes), check(t, "consumer_subscriptions consumer_subscriptions_pattern_check", "pattern", pattern))
		require.Equal(t, takes(nameForm, pattern, 56), check(t, "consumers consumers_name_check", "name", pattern))
		if !patternForm.MatchString(pattern) || !typeForm.MatchString(eventType) {
			return
		}
		var like bool
		require.NoError(t, pool.QueryRow(t.Context(), `select $1::text like replace(replace($2::text, '_', '\_'), '*', '%')`, eventType, pattern).Scan(&like))
		require.Equal(t, like, matches(pattern, eventType))
	})
}

// FuzzReceive: data of any shape and version becomes what a handler takes, or an error; nothing panics, and the event stays as
// it was.
func FuzzReceive(f *testing.F) {
	for _, data := range []string{
		`{"Name": "Ada Lovelace"}`, `{"name": 1}`, `null`, `[]`, `"x"`, `1e400`, `{"First": "Ada", "Last": null}`, ``, `{`, "\xff",
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), `{"Count": 9223372036854775808}`, `{"Name":"\ud800"}`,
	} {
		f.Add([]byte(data), int32(1))
		f.Add([]byte(data), int32(2))
	}
	type first struct{ Name string }
	type second struct {
		First, Last string
		Count       int64
	}
	reg := NewRegistry()
	Upcast(reg, "t", 1, func(o first) (second, error) { return second{First: o.Name}, nil })
	Upcast(reg, "t", 2, func(o second) (map[string]any, error) { return map[string]any{"first": o.First, "count": o.Count}, nil })
	f.Fuzz(func(t *testing.T, data []byte, version int32) {
		before := string(data)
		e := &stored{Type: "t", Data: data, SchemaVersion: version}
		raised, to, err := reg.upcasters.raise(e)
		if err == nil {
			require.GreaterOrEqual(t, to, int(version))
			require.NotContains(t, []int{1, 2}, to)
			require.True(t, to == int(version) || json.Valid(raised))
		}
		_, _ = receive[map[string]any](reg, "c", &item{event: e}, 1)
		_, _ = receive[[]int](reg, "c", &item{event: e}, 1)
		_, rawErr := receive[json.RawMessage](reg, "c", &item{event: e}, 1)
		require.Equal(t, err == nil && json.Valid(raised), rawErr == nil)
		require.Equal(t, before, string(e.Data))
		require.Equal(t, version, e.SchemaVersion)
	})
}

// FuzzBackoff: the wait doubles up to its limit, and a tenth more, whatever durations somebody has configured.
func FuzzBackoff(f *testing.F) {
	for _, s := range []struct{ base, limit, attempt int64 }{
		{int64(time.Second), int64(time.Hour), 25},
		{1, math.MaxInt64, 64},
		{1<<40 + 1, int64(time.Hour), 25},
		{1<<34 + 1, int64(time.Hour), 31},
		{math.MaxInt64, math.MaxInt64, 1},
		{int64(time.Second), int64(time.Hour), 0},
		{3, 5, math.MaxInt64},
	} {
		f.Add(s.base, s.limit, s.attempt)
	}
	f.Fuzz(func(t *testing.T, base, limit, attempt int64) {
		if base <= 0 || limit < base || attempt < 1 {
			return
		}
		e := NewEngine(nil, NewRegistry(), nil, Config{RetryBase: time.Duration(base), RetryMax: time.Duration(limit)})
		want := new(big.Int).Lsh(big.NewInt(base), uint(min(attempt-1, 128)))
		if want.Cmp(big.NewInt(limit)) > 0 {
			want.SetInt64(limit)
		}
		most := new(big.Int).Add(want, new(big.Int).Div(want, big.NewInt(10)))
		if !most.IsInt64() {
			most.SetInt64(math.MaxInt64)
		}
		wait := int64(e.Backoff("nobody", int(attempt)))
		require.GreaterOrEqual(t, wait, want.Int64())
		require.LessOrEqual(t, wait, most.Int64())
	})
}
