package ratelimit

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "  "} {
		limits, err := Parse(value)
		require.NoError(t, err)
		require.Equal(t, Defaults(), limits)
	}
	limits, err := Parse(" off ")
	require.NoError(t, err)
	require.Empty(t, limits)

	limits, err = Parse("signup:address=5/90s, login:pair = off ,checkout:account=1000000/24h")
	require.NoError(t, err)
	want := Defaults()
	want[Of{Signup, Address}] = Limit{5, 90 * time.Second}
	want[Of{Checkout, Account}] = Limit{1_000_000, 24 * time.Hour}
	delete(want, Of{Login, Pair})
	require.Equal(t, want, limits)

	for value, says := range map[string]string{
		"on":                                  `"on" must be like`,
		"signup:address=5/1h,":                `"" must be like`,
		"signup:account=5/1h":                 `"signup:account=5/1h" names no limit: there are checkout:account, checkout:address, login:account, login:address, login:pair, signup:address`,
		"signup=5/1h":                         "names no limit",
		"off,signup:address=5/1h":             `"off" must be like`,
		"signup:address=5/1h,signup:address=": "is there twice",
		"signup:address=0/1h":                 "a number of requests from 1 to 1000000",
		"signup:address=-5/1h":                "a number of requests",
		"signup:address=1000001/1h":           "a number of requests",
		"signup:address=many/1h":              "a number of requests",
		"signup:address=":                     "a number of requests",
		"login:pair=5":                        "a time from 1s to 24h",
		"login:pair=5/1":                      "a time from 1s to 24h",
		"login:pair=5/999ms":                  "a time from 1s to 24h",
		"login:pair=5/25h":                    "a time from 1s to 24h",
		"login:pair=5/-1h":                    "a time from 1s to 24h",
		"login:pair=5/1h/1h":                  "a time from 1s to 24h",
	} {
		limits, err := Parse(value)
		require.ErrorContains(t, err, says, value)
		require.Nil(t, limits)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:0:1:2:3:4:5": "2001:db8:0:1::/64", "fe80::1%eth0": "fe80::/64",
		"": "invalid Prefix", "192.0.2": "invalid Prefix", "192.0.2.1:80": "invalid Prefix", "@": "invalid Prefix",
	} {
		require.Equal(t, want, Network(address).String(), address)
	}
}

// FuzzParse: what is taken are limits that can be kept, the others than those that are named being the defaults; what is not is refused by its
// part.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "off", "signup:address=5/1h,login:pair=off", "signup:address=5/1h,signup:address=6/1h", "signup:address=+5/1h", "login:account=1/1s", "checkout:address=1000000/1s",
		"login:account=0x10/1h", "login:account=1_0/1h", "login:account=1/1h30m", "login:account=1/1e3s", "login:account=1/24h0m0.000000001s", "=,=", ":=off", "login:\xffaccount=1/1h",
		"signup:address=٣/1h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		limits, err := Parse(value)
		if err != nil {
			require.Nil(t, limits)
			require.True(t, strings.HasPrefix(err.Error(), `"`), "the part is named: %s", err)
			return
		}
		for of, l := range limits {
			require.Contains(t, Defaults(), of)
			require.True(t, l.Requests >= 1 && l.Requests <= MaxRequests && l.Period >= MinPeriod && l.Period <= MaxPeriod)
			require.GreaterOrEqual(t, l.step(), time.Microsecond, "the database counts in these")
			require.True(t, l.slack() >= 0 && l.slack() < l.Period)
			require.True(t, l == Defaults()[of] || strings.Contains(value, of.String()))
		}
		for of := range Defaults() {
			require.True(t, limits[of] != Limit{} || strings.Contains(value, "off"))
		}
	})
}
