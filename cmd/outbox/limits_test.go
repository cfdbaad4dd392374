package main_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// signUps counts how many signups that cannot be are refused for what they are, before the limit refuses them, of at most n.
func (p *process) signUps(n int, header ...string) int {
	p.t.Helper()
	for i := range n {
		switch a := p.call("POST", "/v1/signup", map[string]any{}, header...); a.status {
		case 422:
		case 429:
			require.Equal(p.t, "rate-limited", a.text("type"))
			after, err := strconv.Atoi(a.header.Get("Retry-After"))
			require.NoError(p.t, err)
			require.Positive(p.t, after)
			return i
		default:
			require.Equal(p.t, 422, a.status, a.raw)
		}
	}
	return n
}

// Under serve the limits hold unless they are switched off, for all processes together; and what a client says of where it comes from is believed
// only of those who are trusted.
func TestServeLimits(t *testing.T) {
	t.Parallel()
	env := []string{
		"DATABASE_URL=" + testdb.New(t), "SMTP_URL=smtp://127.0.0.1:1", "OUTBOX_PAYMENTS=sandbox", "OUTBOX_ADMIN_TOKENS=", "OUTBOX_RATE_LIMITS=", "OUTBOX_TRUSTED_PROXIES=",
	}
	first := startServe(t, "api", env)
	require.Equal(t, 20, first.signUps(40), "the default")
	require.Equal(t, 0, first.signUps(1, "X-Forwarded-For", "203.0.113.9"), "nobody is trusted")
	first.sample(`outbox_rate_limited_total{kind="address",route="signup"} 2`)
	first.sample(`outbox_rate_limited_total{kind="pair",route="login"} 0`)

	second := startServe(t, "api", append(env, "OUTBOX_TRUSTED_PROXIES=127.0.0.0/8"))
	require.Equal(t, 0, second.signUps(1), "another process")
	require.Equal(t, 20, second.signUps(40, "X-Forwarded-For", "203.0.113.9"))
	require.Equal(t, 20, second.signUps(40, "X-Forwarded-For", "203.0.113.9, 203.0.113.10"))

	off := startServe(t, "api", append(env, "OUTBOX_RATE_LIMITS=off"))
	require.Equal(t, 40, off.signUps(40))
}

// Under dev nothing is limited unless it is asked for.
func TestDevLimits(t *testing.T) {
	t.Parallel()
	require.Equal(t, 40, startDev(t, dataDir(t), "OUTBOX_RATE_LIMITS=").signUps(40))
	require.Equal(t, 2, startDev(t, dataDir(t), "OUTBOX_RATE_LIMITS=signup:address=2/24h").signUps(5))
}
