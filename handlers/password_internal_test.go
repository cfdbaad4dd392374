package handlers

import (
	"testing"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"
)

// A login without an account does the work of one with: a comparison with a hash of the same parameters.
func TestLoginDoesTheSameWorkWithoutAnAccount(t *testing.T) {
	t.Parallel()
	p := newPasswords(1)
	known, err := p.hash(t.Context(), "correct horse battery")
	require.NoError(t, err)
	var compared []*argon2id.Params
	p.compare = func(password, hash string) (bool, error) {
		params, _, _, err := argon2id.DecodeHash(hash)
		require.NoError(t, err)
		compared = append(compared, params)
		return argon2id.ComparePasswordAndHash(password, hash)
	}
	for hash, want := range map[string]bool{known: true, "": false} {
		ok, err := p.match(t.Context(), "correct horse battery", hash)
		require.NoError(t, err)
		require.Equal(t, want, ok)
	}
	ok, err := p.match(t.Context(), "nobody's password", "")
	require.NoError(t, err)
	require.False(t, ok)
	require.Len(t, compared, 3)
	require.Equal(t, compared[0], compared[1])
	require.Equal(t, compared[0], compared[2])
}
