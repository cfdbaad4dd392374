package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// networksOf reads the networks of a variable, with commas between them. An address alone is a network of one. An error names the variable and
// the part that cannot be.
func networksOf(variable, value string) (networks []netip.Prefix, err error) {
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		wrong := func(says string) ([]netip.Prefix, error) { return nil, fmt.Errorf("%s: %q %s", variable, part, says) }
		network, err := netip.ParsePrefix(part)
		if address, plain := netip.ParseAddr(part); plain == nil && address.Zone() == "" {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		switch {
		case err != nil:
			return wrong("must be a network or an address, like 10.0.0.0/8 or 2001:db8::1")
		case network.Addr().Is4In6():
			return wrong("must be written as IPv4")
		case network != network.Masked():
			return wrong("has more bits than its length: " + network.Masked().String() + " is the network")
		}
		networks = append(networks, network)
	}
	return networks, nil
}
