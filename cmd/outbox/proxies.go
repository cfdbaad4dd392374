package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"
)

// trustedProxies are the networks whose X-Forwarded-For is believed. An address alone is a network of one.
func (c config) trustedProxies() ([]netip.Prefix, error) {
	var proxies []netip.Prefix
	for part := range strings.SplitSeq(c.TrustedProxies, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		wrong := func(says string) ([]netip.Prefix, error) {
			return nil, fmt.Errorf("OUTBOX_TRUSTED_PROXIES: %q %s", part, says)
		}
		network, err := netip.ParsePrefix(part)
		if address, plain := netip.ParseAddr(part); plain == nil && address.Zone() == "" {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		switch {
		case err != nil:
			return wrong("must be a network or an address, like 10.0.0.0/8 or 2001:db8::1")
		case network.Addr().Is4In6():
			return wrong("must be written as IPv4")
		case network.Bits() == 0:
			return wrong("would let every client say where it comes from")
		case network != network.Masked():
			return wrong("has more bits than its length: " + network.Masked().String() + " is the network")
		}
		proxies = append(proxies, network)
	}
	return proxies, nil
}

// behind says where a request comes from: of the addresses in X-Forwarded-For, and the connection's own, the last that is no trusted proxy's.
// Without proxies it is the connection's own, whatever the request claims; and so it is where an address on the way to it cannot be read.
func behind(proxies []netip.Prefix) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		trust = append(trust, echo.TrustIPRange(&net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}
