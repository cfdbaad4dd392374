package outbox

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestPointers(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]pointer{
		"": nil, "/": {""}, "/a": {"a"}, "/a/0": {"a", "0"}, "/~0/~1": {"~", "/"}, "/~01": {"~1"}, "//": {"", ""}, "/a b/é": {"a b", "é"},
	} {
		got, ok := parsePointer(s)
		require.True(t, ok, s)
		require.Equal(t, want, got)
		require.Equal(t, s, got.String())
	}
	for _, s := range []string{"a", "email", " /a", "#/a", "/~", "/a~", "/~2", "/a/~x/b"} {
		_, ok := parsePointer(s)
		require.False(t, ok, s)
	}
}

func TestRedactedData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		data, pointer, want string
		found               bool
	}{
		{`{"a": 1, "b": [1.50, "x"]}`, "/b/1", `{"a": 1, "b": [1.50, "[redacted]"]}`, true},
		{`{"a": 1}`, "", `"[redacted]"`, true},
		{`{"a": {"b": 1}}`, "/a", `{"a": "[redacted]"}`, true},
		{`{"a": null}`, "/a", `{"a": "[redacted]"}`, true},
		{`{"a/b": 1, "~": {"": 2}}`, "/~0/", `{"a/b": 1, "~": {"": "[redacted]"}}`, true},
		{`{"a": "[redacted]"}`, "/a", `{"a": "[redacted]"}`, true},
		{`{"a": "[redacted]"}`, "/a/b/0", `{"a": "[redacted]"}`, true},
		{`{"a": "x"}`, "/a/b", `{"a": "x"}`, false},
		{`{"a": "x"}`, "/A", `{"a": "x"}`, false},
		{`["x"]`, "/1", `["x"]`, false},
		{`["x"]`, "/-", `["x"]`, false},
		{`["x"]`, "/-1", `["x"]`, false},
		{`["x"]`, "/00", `["x"]`, false},
		{`["x"]`, "/+0", `["x"]`, false},
		{`7`, "/a", `7`, false},
	} {
		p, ok := parsePointer(c.pointer)
		require.True(t, ok)
		found := []bool{false}
		got, n, err := redactData(json.RawMessage(c.data), []pointer{p}, found)
		require.NoError(t, err)
		require.JSONEq(t, c.want, string(got), "%s of %s", c.pointer, c.data)
		require.Equal(t, c.found, found[0], "%s of %s", c.pointer, c.data)
		if n == 0 {
			require.Equal(t, c.data, string(got))
		}
	}
}

// Whatever was planted at the pointers is gone from the documents and from what leads from one to the other, everything else is what it was, and
// twice is as once.
func TestRedactionTakesWhatIsNamedAndNothingElse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		before := anyDocument(rt, 3)
		after := mutated(rt, before, 3)
		paths := slices.Collect(maps.Keys(allPaths(before, after)))
		slices.Sort(paths)
		var at []pointer
		for range rapid.IntRange(1, 4).Draw(rt, "pointers") {
			p, ok := parsePointer(rapid.SampledFrom(paths).Draw(rt, "pointer"))
			require.True(rt, ok)
			at = append(at, p)
			before, after = planted(rt, before, p), planted(rt, after, p)
		}
		diff, err := diffData(rawData(before), rawData(after))
		require.NoError(rt, err)
		found := make([]bool, len(at))
		documents := map[string]any{"before": before, "after": after}
		for name, v := range documents {
			got, n, err := redactData(rawData(v), at, found)
			require.NoError(rt, err)
			require.NotContains(rt, string(got), "secret")
			out, err := anyData(got)
			require.NoError(rt, err)
			sameBut(rt, nil, at, v, out)
			again, more, err := redactData(got, at, found)
			require.NoError(rt, err)
			require.Zero(rt, more)
			require.Equal(rt, string(got), string(again), "%s, of which %d were replaced", name, n)
		}
		there := allPaths(before, after)
		for i, p := range at {
			require.True(rt, found[i] || !there[p.String()], "%s was not found", p)
		}
		inDiff := make([]bool, len(at))
		got, _, err := redactDiff(diff, at, inDiff)
		require.NoError(rt, err)
		encoded, err := json.Marshal(got)
		require.NoError(rt, err)
		require.NotContains(rt, string(encoded), "secret")
		sameDiffBut(rt, at, diff, got)
		again, more, err := redactDiff(got, at, inDiff)
		require.NoError(rt, err)
		require.Zero(rt, more)
		require.Equal(rt, got, again)
	})
}

// sameBut requires got to be want, but for RedactedText at what the pointers lead to.
func sameBut(t require.TestingT, here pointer, at []pointer, want, got any) {
	if slices.ContainsFunc(at, func(p pointer) bool { return slices.Equal(p, here) }) {
		require.Equal(t, RedactedText, got)
		return
	}
	below := func(name string) pointer { return append(slices.Clone(here), name) }
	switch w := want.(type) {
	case map[string]any:
		require.IsType(t, w, got)
		g, _ := got.(map[string]any)
		require.Len(t, g, len(w))
		for name := range w {
			require.Contains(t, g, name)
			sameBut(t, below(name), at, w[name], g[name])
		}
	case []any:
		require.IsType(t, w, got)
		g, _ := got.([]any)
		require.Len(t, g, len(w))
		for i := range w {
			sameBut(t, below(strconv.Itoa(i)), at, w[i], g[i])
		}
	default:
		require.Equal(t, want, got)
	}
}

// sameDiffBut requires the same of the values of a diff, change by change, but that those below a pointer are one change at it.
func sameDiffBut(t require.TestingT, at []pointer, want, got []DataChange) {
	joined := map[string]bool{}
	for _, w := range want {
		path, _ := parsePointer(w.Path)
		top := pointer(nil)
		covered := false
		for _, p := range at {
			if p.leadsInto(path) && (!covered || len(p) < len(top)) {
				top, covered = p, true
			}
		}
		if covered && joined[top.String()] {
			continue
		}
		require.NotEmpty(t, got)
		g := got[0]
		got = got[1:]
		if covered {
			joined[top.String()] = true
			require.Equal(t, top.String(), g.Path)
			for _, v := range []json.RawMessage{g.From, g.To} {
				require.True(t, v == nil || reflect.DeepEqual(v, redactedData))
			}
			if len(top) == len(path) {
				require.Equal(t, [3]any{w.Op, w.From == nil, w.To == nil}, [3]any{g.Op, g.From == nil, g.To == nil})
			}
			continue
		}
		require.Equal(t, [2]string{w.Op, w.Path}, [2]string{g.Op, g.Path})
		for _, v := range [][2]json.RawMessage{{w.From, g.From}, {w.To, g.To}} {
			require.Equal(t, v[0] == nil, v[1] == nil)
			if v[0] == nil {
				continue
			}
			was, err := anyData(v[0])
			require.NoError(t, err)
			is, err := anyData(v[1])
			require.NoError(t, err)
			sameBut(t, path, at, was, is)
		}
	}
	require.Empty(t, got)
}

func anyDocument(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 7).Draw(t, "kind")
	switch {
	case depth > 0 && kind < 3:
		object := map[string]any{}
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			object[rapid.SampledFrom([]string{"a", "b", "", "~", "/", "0", "1", "~1"}).Draw(t, "name")] = anyDocument(t, depth-1)
		}
		return object
	case depth > 0 && kind < 5:
		list := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			list = append(list, anyDocument(t, depth-1))
		}
		return list
	}
	return rapid.SampledFrom([]any{nil, true, json.Number("1.50"), json.Number("1e3"), "", "x", "<&>", "a/b"}).Draw(t, "leaf")
}

// mutated is a document that has much in common with v.
func mutated(t *rapid.T, v any, depth int) any {
	if rapid.IntRange(0, 5).Draw(t, "replace") == 0 {
		return anyDocument(t, depth)
	}
	switch was := v.(type) {
	case map[string]any:
		is := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(was)) {
			if rapid.IntRange(0, 4).Draw(t, "remove") > 0 {
				is[name] = mutated(t, was[name], depth-1)
			}
		}
		if rapid.Bool().Draw(t, "add") {
			is["c"] = anyDocument(t, depth-1)
		}
		return is
	case []any:
		is := []any{}
		for _, e := range was[:rapid.IntRange(0, len(was)).Draw(t, "length")] {
			is = append(is, mutated(t, e, depth-1))
		}
		return is
	}
	return v
}

// planted has secrets at p, as values and as names, where v has anything there.
func planted(t *rapid.T, v any, p pointer) any {
	if len(p) == 0 {
		return rapid.SampledFrom([]any{
			"secret", []any{"secret", "x"}, map[string]any{"secret": "y", "a": "secret"}, map[string]any{"a": map[string]any{"secret": nil}}, []any{[]any{"secret"}},
		}).Draw(t, "secret")
	}
	switch in := v.(type) {
	case map[string]any:
		if member, ok := in[p[0]]; ok {
			is := maps.Clone(in)
			is[p[0]] = planted(t, member, p[1:])
			return is
		}
	case []any:
		if i, err := strconv.Atoi(p[0]); err == nil && i < len(in) {
			is := slices.Clone(in)
			is[i] = planted(t, in[i], p[1:])
			return is
		}
	}
	return v
}

// allPaths are the pointers to all that the documents have.
func allPaths(documents ...any) map[string]bool {
	all := map[string]bool{}
	var walk func(here pointer, v any)
	walk = func(here pointer, v any) {
		all[here.String()] = true
		switch in := v.(type) {
		case map[string]any:
			for name, member := range in {
				walk(append(slices.Clone(here), name), member)
			}
		case []any:
			for i, e := range in {
				walk(append(slices.Clone(here), strconv.Itoa(i)), e)
			}
		}
	}
	for _, v := range documents {
		walk(nil, v)
	}
	return all
}
