package ratelimit

import "net/netip"

// Network is what one person may be given: an IPv4 address, or the 64 bits of an IPv6 one. It is the zero Prefix for what is no address.
func Network(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits) // cannot fail: the bits are those of the address
	return prefix
}
