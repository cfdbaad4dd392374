package main

import (
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a request claims counts as far as trusted proxies vouch for it, and no further.
func TestBehindProxies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trusted, peer string
		forwarded     []string
		want          string
	}{
		{"", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"", "127.0.0.1:5", []string{"203.0.113.9"}, "127.0.0.1"},
		{"10.0.0.0/8", "192.0.2.1:5", []string{"203.0.113.9"}, "192.0.2.1"},
		{"10.0.0.0/8", "127.0.0.1:5", []string{"203.0.113.9"}, "127.0.0.1"}, // what echo trusts by itself is not trusted
		{"10.0.0.0/8", "192.168.0.1:5", []string{"203.0.113.9"}, "192.168.0.1"},
		{"10.0.0.0/8", "[fe80::1]:5", []string{"203.0.113.9"}, "fe80::1"},
		{"10.0.0.0/8", "10.1.1.1:5", nil, "10.1.1.1"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"1.1.1.1", "203.0.113.9 , 10.2.2.2"}, "203.0.113.9"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"127.0.0.1"}, "127.0.0.1"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"garbage, 203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"203.0.113.9, garbage"}, "10.1.1.1"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{""}, "10.1.1.1"},
		{"10.0.0.0/8", "10.1.1.1:5", []string{"203.0.113.9:1234"}, "10.1.1.1"},
		{"10.0.0.0/8", "[::ffff:10.1.1.1]:5", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		{"10.0.0.0/8,192.0.2.7", "192.0.2.7:5", []string{"203.0.113.9, 10.0.0.1"}, "203.0.113.9"},
		{"192.0.2.7", "192.0.2.8:5", []string{"203.0.113.9"}, "192.0.2.8"},
		{" 2001:db8::/32 , ,10.0.0.1", "[2001:db8::7]:5", []string{"2001:db9::1, [2001:db8::8]"}, "2001:db9::1"},
		{"2001:db8::/32", "10.1.1.1:5", []string{"2001:db9::1"}, "10.1.1.1"},
	} {
		proxies, err := config{TrustedProxies: c.trusted}.trustedProxies()
		require.NoError(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != nil {
			r.Header["X-Forwarded-For"] = c.forwarded
		}
		r.Header.Set("X-Real-IP", "198.51.100.1")
		r.Header.Set("Forwarded", "for=198.51.100.2")
		require.Equal(t, c.want, behind(proxies)(r), "%+v", c)
	}
}

func TestTrustedProxiesAreRefused(t *testing.T) {
	t.Parallel()
	for value, says := range map[string]string{
		"everybody":              `OUTBOX_TRUSTED_PROXIES: "everybody" must be a network or an address`,
		"10.0.0.0/8,10.0.0.0/33": `"10.0.0.0/33" must be`,
		"10.0.0.1/8":             `"10.0.0.1/8" has more bits than its length: 10.0.0.0/8`,
		"0.0.0.0/0":              `"0.0.0.0/0" would let every client say`,
		"::/0":                   `"::/0" would let every client say`,
		"::ffff:10.0.0.1":        "must be written as IPv4",
		"fe80::1%eth0":           "must be a network or an address",
		"10.0.0.1:80":            "must be a network or an address",
	} {
		_, err := config{TrustedProxies: value}.trustedProxies()
		require.ErrorContains(t, err, says, value)
	}
}

// FuzzTrustedProxies: whatever is configured and claimed, who is not trusted is who it is, and who is found behind trusted ones is not one.
func FuzzTrustedProxies(f *testing.F) {
	for _, s := range [][3]string{
		{"10.0.0.0/8", "10.1.1.1", "1.1.1.1, 203.0.113.9"},
		{"10.0.0.0/8", "192.0.2.1", "10.1.1.1"},
		{"::1,2001:db8::/33", "2001:db8::1", "[2001:db8::8], x"},
		{"0.0.0.0/1", "::ffff:10.0.0.1", "::ffff:1.2.3.4, 1.1.1.1"},
		{"::/1", "1.2.3.4", ",,,"},
		{"fe80::1%a", "fe80::1", "fe80::1%a"},
		{"10.0.0.1/32", "10.0.0.1", "10.0.0.1"},
		{"\xff/8", "", "\xff"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, configured, peer, forwarded string) {
		proxies, err := config{TrustedProxies: configured}.trustedProxies()
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "OUTBOX_TRUSTED_PROXIES: "))
			require.Empty(t, proxies)
			return
		}
		trusted := func(ip netip.Addr) bool {
			return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
		}
		from, err := netip.ParseAddr(peer)
		if err != nil || from.Zone() != "" {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = netip.AddrPortFrom(from, 1).String()
		r.Header["X-Forwarded-For"] = []string{forwarded}
		found, err := netip.ParseAddr(behind(proxies)(r))
		if !trusted(from) {
			require.NoError(t, err)
			require.Equal(t, from.Unmap(), found.Unmap())
			return
		}
		require.NoError(t, err)
		if found.Unmap() != from.Unmap() && trusted(found) { // all are: it is the farthest
			for part := range strings.SplitSeq(forwarded, ",") {
				ip, err := netip.ParseAddr(strings.Trim(part, " \t[]"))
				require.True(t, err == nil && trusted(ip), part)
			}
		}
	})
}
