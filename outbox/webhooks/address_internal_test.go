package webhooks

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var anywhere = rules{public: true}

// Each range that is not anybody's: its first address, its last, and what stands beside it where that is public.
func TestSpecialAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for _, r := range []struct{ first, last, before, after string }{
		{"0.0.0.0", "0.255.255.255", "", "1.0.0.0"},
		{"10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"},
		{"100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0"},
		{"127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0"},
		{"169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0"},
		{"169.254.169.254", "169.254.169.254", "", ""},
		{"172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0"},
		{"192.0.0.0", "192.0.0.255", "191.255.255.255", "192.0.1.0"},
		{"192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0"},
		{"192.31.196.0", "192.31.196.255", "192.31.195.255", "192.31.197.0"},
		{"192.52.193.0", "192.52.193.255", "192.52.192.255", "192.52.194.0"},
		{"192.88.99.0", "192.88.99.255", "192.88.98.255", "192.88.100.0"},
		{"192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0"},
		{"192.175.48.0", "192.175.48.255", "192.175.47.255", "192.175.49.0"},
		{"198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0"},
		{"198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0"},
		{"203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0"},
		{"224.0.0.0", "239.255.255.255", "223.255.255.255", ""},
		{"240.0.0.0", "255.255.255.255", "", ""},

		{"::", "::1", "", ""},
		{"::10.0.0.1", "::1.1.1.1", "", ""}, // IPv4-compatible, of old
		{"::ffff:10.0.0.0", "::ffff:10.255.255.255", "::ffff:9.255.255.255", "::ffff:11.0.0.0"},
		{"::ffff:127.0.0.1", "::ffff:127.0.0.1", "", ""},
		{"64:ff9b::10.0.0.0", "64:ff9b::10.255.255.255", "64:ff9b::9.255.255.255", "64:ff9b::11.0.0.0"},
		{"64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1", "", "64:ff9b::1.1.1.1"},
		{"64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"64:ff9b:1::101:101", "64:ff9b:1::808:808", "", ""},
		{"64:ff9b::1:0:0", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"100::", "100::ffff:ffff:ffff:ffff", "", ""},
		{"100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", "", ""}, // dummy
		{"1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "1fff::", "", "2000::"},
		{"2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"},
		{"2001::1", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "", ""}, // Teredo
		{"2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "", ""},   // benchmarks
		{"2001:10::", "2001:1f:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"2001:20::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
		{"2002:a00::", "2002:aff:ffff:ffff:ffff:ffff:ffff:ffff", "2002:9ff:ffff::", "2002:b00::"},
		{"2002:7f00:1::1", "2002:a9fe:a9fe::1", "", "2002:101:101::1"},
		{"2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"},
		{"3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"},
		{"4000::", "5f00::1", "", ""},
		{"fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"fe80::1%eth0", "fe80::1%1", "", ""},
		{"fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
		{"ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", ""},
	} {
		require.False(t, anywhere.allow(netip.MustParseAddr(r.first)), r.first)
		require.False(t, anywhere.allow(netip.MustParseAddr(r.last)), r.last)
		for _, beside := range []string{r.before, r.after} {
			if beside != "" {
				require.True(t, anywhere.allow(netip.MustParseAddr(beside)), beside)
			}
		}
	}
	for _, public := range []string{"1.1.1.1", "8.8.8.8", "223.255.255.254", "2606:4700:4700::1111", "2a00:1450:4001:830::200e"} {
		require.True(t, anywhere.allow(netip.MustParseAddr(public)), public)
		require.False(t, rules{}.allow(netip.MustParseAddr(public)), "plain text stays at home: "+public)
	}
	require.False(t, anywhere.allow(netip.Addr{}))
}

func anyV4(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")
	return netip.AddrFrom4([4]byte(b))
}

func anyV6(t *rapid.T) netip.Addr {
	b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6")
	copy(b, rapid.SampledFrom([][]byte{
		nil,
		{0x20, 0x01},
		{0x20, 0x02},
		{0, 0x64, 0xff, 0x9b},
		{0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0},
		{0xfe, 0x80},
		{0xfc},
		{0xff},
		{0x3f, 0xff},
		make([]byte, 12),
		{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
	}).Draw(t, "begins"))
	return netip.AddrFrom16([16]byte(b))
}

// However an IPv4 address is wrapped, it is judged as itself.
func TestWrappedAddressesAreJudgedAsThemselves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v4 := anyV4(t)
		in := v4.As4()
		r := rules{public: rapid.Bool().Draw(t, "public")}
		if rapid.Bool().Draw(t, "at home") {
			r.networks = []netip.Prefix{netip.PrefixFrom(v4, rapid.IntRange(0, 32).Draw(t, "bits")).Masked()}
		}
		want := r.allow(v4)
		if r.allow(netip.AddrFrom16(v4.As16())) != want {
			t.Fatalf("mapped %s: not %v", v4, want)
		}
		if !r.public {
			return
		}
		nat := nat64.Addr().As16()
		copy(nat[12:], in[:])
		six := sixTo4.Addr().As16()
		copy(six[2:], in[:])
		for _, wrapped := range [][16]byte{nat, six} {
			if a := netip.AddrFrom16(wrapped); r.allow(a) != want {
				t.Fatalf("%s, which is %s: not %v", a, v4, want)
			}
		}
	})
}

// By what the standard library knows of addresses: nothing that is not anybody's is let through.
func TestNothingPrivateIsAllowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := anyV6(t)
		if rapid.Bool().Draw(t, "4") {
			a = anyV4(t)
		}
		as := a.Unmap()
		ours := !as.IsGlobalUnicast() || as.IsPrivate() || as.IsLoopback() || as.IsLinkLocalUnicast() || as.IsMulticast() || as.IsUnspecified()
		if ours && anywhere.allow(a) {
			t.Fatalf("%s is allowed", a)
		}
		if (rules{}).allow(a) {
			t.Fatalf("%s is allowed where nothing is", a)
		}
		network := netip.PrefixFrom(as, as.BitLen())
		if !(rules{networks: []netip.Prefix{network}}).allow(a) {
			t.Fatalf("%s is refused where it is said to be at home", a)
		}
	})
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add(netip.MustParseAddr("64:ff9b::a00:1").AsSlice())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		if as := a.Unmap(); anywhere.allow(a) && (!as.IsGlobalUnicast() || as.IsPrivate() || as.IsLoopback()) {
			t.Fatalf("%s is allowed", a)
		}
	})
}
