package webhooks

import (
	"net/netip"
	"slices"
)

// What stands in IANA's registries of special-purpose addresses (RFC 6890) and is no place for somebody's endpoint, with multicast
// and what is reserved. Anycast services of the registries that are globally reachable are among it: none of them takes webhooks.
var special = prefixes(
	"0.0.0.0/8",       // this network
	"10.0.0.0/8",      // private
	"100.64.0.0/10",   // shared by a provider's customers
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, where clouds keep their metadata
	"172.16.0.0/12",   // private
	"192.0.0.0/24",    // IETF protocols
	"192.0.2.0/24",    // documentation
	"192.31.196.0/24", // AS112
	"192.52.193.0/24", // AMT
	"192.88.99.0/24",  // 6to4 relays, of old
	"192.168.0.0/16",  // private
	"192.175.48.0/24", // AS112
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast

	"2001::/23",         // IETF protocols: Teredo, benchmarks, ORCHID
	"2001:db8::/32",     // documentation
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
)

var (
	// unicast is all of IPv6 that is given to anybody. Loopback, link- and site-local, unique local, multicast, discarded and IPv4-compatible
	// addresses are outside, and so is the NAT64 of one's own (64:ff9b:1::/48), of which nobody knows where the IPv4 address is in it.
	unicast = netip.MustParsePrefix("2000::/3")
	// These lead to the IPv4 address within them.
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4 = netip.MustParsePrefix("2002::/16")
)

func prefixes(all ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(all))
	for i, p := range all {
		parsed[i] = netip.MustParsePrefix(p)
	}
	return parsed
}

// rules say which addresses may be dialled: those of the networks and, where public is set, all that are anybody's.
type rules struct {
	networks []netip.Prefix
	public   bool
}

func (r rules) allow(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return false
	case contains(r.networks, addr):
		return true
	case !r.public:
		return false
	case addr.Is4():
		return !contains(special, addr)
	case nat64.Contains(addr):
		in := addr.As16()
		return r.allow(netip.AddrFrom4([4]byte(in[12:16])))
	case sixTo4.Contains(addr):
		in := addr.As16()
		return r.allow(netip.AddrFrom4([4]byte(in[2:6])))
	}
	return unicast.Contains(addr) && !contains(special, addr)
}

func contains(all []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(addr) })
}
