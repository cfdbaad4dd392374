package webhooks

import (
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	maxNameBytes = 40
	maxURLBytes  = 2000
	maxTypes     = 50

	secretPrefix                    = "whsec_"
	leastSecret, mostSecret, newKey = 24, 64, 32 // bytes; the first two are Standard Webhooks'
)

func checkName(name string) error {
	if !outbox.ValidName(ConsumerPrefix+name) || len(name) > maxNameBytes {
		return &InvalidError{"name", "must be 1 to 40 of a-z 0-9 in words joined by - or _"}
	}
	return nil
}

func checkTypes(types []string) error {
	invalid := func(t string) bool { return !outbox.ValidPattern(t) }
	if len(types) == 0 || len(types) > maxTypes || slices.ContainsFunc(types, invalid) {
		return &InvalidError{"types", "must be 1 to 50 event types, or prefixes like cart.*"}
	}
	return nil
}

// givenOrNew returns the secret, or a new one where it is empty.
func givenOrNew(secret string) (string, error) {
	if secret == "" {
		return newSecret(), nil
	}
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || strings.ContainsAny(encoded, "\r\n") || len(key) < leastSecret || len(key) > mostSecret {
		return "", &InvalidError{"secret", "must be whsec_ and the base64 of 24 to 64 bytes"}
	}
	return secret, nil
}

func newSecret() string {
	key := make([]byte, newKey)
	_, _ = rand.Read(key) // it never fails
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// checkURL refuses what is no URL of an endpoint. The addresses of a host's name are looked at when they are dialled, and not here, where they
// may be others; a literal address can be told at once.
func (s *sender) checkURL(raw string) error {
	refused := func(reason string) error { return &InvalidError{"url", reason} }
	if raw == "" || len(raw) > maxURLBytes {
		return refused("must be 1 to 2,000 characters")
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return refused("must be ASCII without blanks; escape what is not")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil: // its text is made of the URL
		return refused("is no URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return refused("must begin with https://, or with http:// within the networks that are allowed")
	case u.Opaque != "" || u.Hostname() == "":
		return refused("must name a host")
	case u.User != nil:
		return refused("must name no user: its secret signs what is sent")
	case strings.Contains(raw, "#"):
		return refused("must have no fragment")
	}
	if port, err := strconv.Atoi(u.Port()); (u.Port() != "" || strings.HasSuffix(u.Host, ":")) && (err != nil || port < 1 || port > 65535) {
		return refused("must have a port from 1 to 65535, or none")
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && !s.rules(u.Scheme).allow(addr) {
		return refused("is at an address that is not allowed")
	}
	return nil
}

// shown is a URL as lists and the audit may have it: what its query holds may be a token.
func shown(raw string) string {
	if before, _, ok := strings.Cut(raw, "?"); ok {
		return before + "?…"
	}
	return raw
}
