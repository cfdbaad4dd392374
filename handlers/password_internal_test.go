package handlers

import (
	"context"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/stretchr/testify/require"
)

// A login without an account does the work of one with: a comparison with a hash of the same parameters, and nothing else.
func TestLoginDoesTheSameWorkWithoutAnAccount(t *testing.T) {
	t.Parallel()
	p := newPasswords(1)
	known, err := p.hash(t.Context(), "correct horse battery")
	require.NoError(t, err)
	var compared []*argon2id.Params
	p.check = func(password, hash string) (bool, *argon2id.Params, error) {
		ok, params, err := argon2id.CheckHash(password, hash)
		require.NoError(t, err)
		compared = append(compared, params)
		return ok, params, err
	}
	for hash, want := range map[string]bool{known: true, "": false} {
		ok, better, err := p.match(t.Context(), "correct horse battery", hash)
		require.NoError(t, err)
		require.Equal(t, want, ok)
		require.Empty(t, better)
	}
	require.Len(t, compared, 2)
	require.Equal(t, hashing, compared[0])
	require.Equal(t, hashing, compared[1])

	p.check = func(string, string) (bool, *argon2id.Params, error) { return true, hashing, nil }
	ok, _, err := p.match(t.Context(), "whatever is like the dummy", "")
	require.NoError(t, err)
	require.False(t, ok, "nobody has no password")
}

// Parameters are OWASP's minimum or better: 19 MiB and two passes, or what it says is as good.
func TestHashing(t *testing.T) {
	t.Parallel()
	require.GreaterOrEqual(t, ours.Memory, uint32(19*1024))
	require.GreaterOrEqual(t, ours.Iterations, uint32(2))
	require.GreaterOrEqual(t, ours.SaltLength, uint32(16))
}

// Of those who wait for a turn there are only so many, and who comes then is not kept.
func TestTheQueueToHashIsBounded(t *testing.T) {
	t.Parallel()
	p := newPasswords(1)
	p.turns <- struct{}{} // somebody hashes
	ctx, leave := context.WithCancel(t.Context())
	ended := make(chan error, maxHashQueue)
	for range maxHashQueue {
		go func() {
			_, err := p.hash(ctx, "a password")
			ended <- err
		}()
	}
	require.Eventually(t, func() bool { return p.waiting.Load() == maxHashQueue }, 20*time.Second, time.Millisecond)
	gone, cancel := context.WithCancel(t.Context())
	cancel() // who is let in to wait leaves at once
	_, err := p.hash(gone, "a password")
	require.Equal(t, "1", refusalOf(t, err, 503).header["Retry-After"])
	leave()
	for range maxHashQueue {
		require.Error(t, <-ended)
	}
	require.Zero(t, p.waiting.Load())
	<-p.turns
	_, err = p.hash(t.Context(), "a password")
	require.NoError(t, err)
	require.Zero(t, p.waiting.Load())
}

func refusalOf(t *testing.T, err error, status int) *problem {
	t.Helper()
	var p *problem
	require.ErrorAs(t, err, &p)
	require.Equal(t, status, p.status)
	return p
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]string{time.Millisecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Hour: "3600"} {
		require.Equal(t, want, rateLimited(wait).header["Retry-After"], wait)
	}
}
