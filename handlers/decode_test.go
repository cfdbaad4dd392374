package handlers

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

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
		ok, _, err := p.match(t.Context(), password, hash)
		require.NoError(t, err)
		require.Equal(t, want, ok)
	}
	ok, _, err := p.match(t.Context(), "nobody's password", "")
	require.NoError(t, err)
	require.False(t, ok)
}
