package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Whatever a body holds, it is taken as every other reader would take it, or refused with a 4xx.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"sku":"moka-pot","quantity":1}`, `{"sku":"a\u0000"}`, `{"sku":"\ud83d\ude00","a":[{"b":null}]}`, `{"sku":"\ud83d"}`, `{"sku":"` + "\xff" + `"}`,
		`{"quantity":1e5}`, `{"quantity":-0}`, `[]`, `nul`, `{"a":1,"a":2}`, `{"":{"":{"":""}}}`, "\\", `"\`, `{"\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in itemRequest
		err := checkJSON(body)
		if err == nil {
			err = bind(body, &in)
		}
		var p *problem
		if errors.As(err, &p) {
			require.True(t, p.status == 400 || p.status == 422, p.status)
			document, err := p.document("id")
			require.NoError(t, err)
			require.True(t, utf8.Valid(document))
			return
		}
		require.NoError(t, err)
		var plain itemRequest
		require.NoError(t, json.Unmarshal(body, &plain))
		require.Equal(t, plain, in)
		require.NotContains(t, in.SKU, "\x00")
	})
}

func TestKeyIDsAreUnambiguous(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	for _, parts := range [][]string{{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}, {"abc"}, {"a", "b", "c"}, {"abc", "", ""}} {
		id := string(keyID(parts...))
		require.Nil(t, seen[id], parts)
		seen[id] = parts
	}
}

func TestPasswordsWaitTheirTurn(t *testing.T) {
	t.Parallel()
	p := newPasswords(1)
	p.turns <- struct{}{} // somebody hashes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.hash(ctx, "a password")
	require.ErrorIs(t, err, context.Canceled)
	<-p.turns
	hash, err := p.hash(t.Context(), "a password")
	require.NoError(t, err)
	for password, want := range map[string]bool{"a password": true, "another": false} {
		ok, err := p.match(t.Context(), password, hash)
		require.NoError(t, err)
		require.Equal(t, want, ok)
	}
	ok, err := p.match(t.Context(), "nobody's password", "")
	require.NoError(t, err)
	require.False(t, ok)
}
