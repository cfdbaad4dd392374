package main

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/labstack/echo/v4"
)

const proxiesVariable = "OUTBOX_TRUSTED_PROXIES"

// trustedProxies are the networks whose X-Forwarded-For is believed.
func (c config) trustedProxies() ([]netip.Prefix, error) {
	proxies, err := networksOf(proxiesVariable, c.TrustedProxies)
	for _, network := range proxies {
		if network.Bits() == 0 {
			return nil, fmt.Errorf("%s: %q would let every client say where it comes from", proxiesVariable, network)
		}
	}
	return proxies, err
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
