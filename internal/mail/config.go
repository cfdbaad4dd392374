package mail

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	netmail "net/mail"
	"net/url"
	"strconv"
	"strings"
)

type encryption int

const (
	opportunistic encryption = iota // STARTTLS where the server offers it
	required                        // STARTTLS or nothing
	none                            // never: for a server on the same host or a private network
	implicit                        // TLS from the first byte
)

// config is an SMTP_URL, taken apart.
type config struct {
	host       string
	port       int
	encryption encryption
	user, pass string
	from       netmail.Address
	// domain is what Message-IDs end in: the sender's.
	domain string
	// roots are the authorities that the server's certificate may come from; nil: the system's.
	roots *x509.CertPool
}

// parseURL reads an SMTP_URL:
//
//	smtp://user:password@host:port?tls=required|none&from=Shop <shop@example.com>
//	smtps://user:password@host:port?from=…
//
// Ports default to 587 and 465, the sender to the user when that is an address, else to no-reply at the host.
// Its errors never hold the URL, which holds a password.
func parseURL(raw string) (config, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return config{}, errors.New("mail: SMTP_URL is no URL")
	}
	c := config{host: u.Hostname(), port: 587}
	switch u.Scheme {
	case "smtp":
	case "smtps":
		c.port, c.encryption = 465, implicit
	default:
		return config{}, errors.New("mail: SMTP_URL must begin with smtp:// or smtps://")
	}
	if c.host == "" || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return config{}, errors.New("mail: SMTP_URL must be smtp://user:password@host:port?from=address")
	}
	if p := u.Port(); p != "" {
		if c.port, err = strconv.Atoi(p); err != nil || c.port < 1 || c.port > 65535 {
			return config{}, errors.New("mail: SMTP_URL has a port that is none")
		}
	}
	if u.User != nil {
		c.user = u.User.Username()
		c.pass, _ = u.User.Password()
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return config{}, errors.New("mail: SMTP_URL has a query that cannot be read")
	}
	for name, values := range query {
		switch value := values[len(values)-1]; {
		case name == "from":
			from, err := netmail.ParseAddress(value)
			if err != nil {
				return config{}, errors.New("mail: SMTP_URL: from is no mail address")
			}
			c.from = *from
		case name == "tls" && c.encryption == implicit:
			return config{}, errors.New("mail: SMTP_URL: tls is for smtp://, and smtps:// is always encrypted")
		case name == "tls" && value == "required":
			c.encryption = required
		case name == "tls" && value == "none":
			c.encryption = none
		case name == "tls":
			return config{}, errors.New("mail: SMTP_URL: tls must be required or none")
		default:
			// It is not named: behind a password with a ? in it, this is the rest of the password.
			return config{}, errors.New("mail: SMTP_URL has a setting that is neither from nor tls; in a user or password, ? is %3F")
		}
	}
	if c.from.Address == "" {
		c.from.Address = defaultSender(c)
	}
	c.domain = c.from.Address[strings.LastIndexByte(c.from.Address, '@')+1:]
	if again, err := netmail.ParseAddress(c.from.String()); err != nil || *again != c.from || !token(c.domain) {
		return config{}, errors.New("mail: SMTP_URL gives no sender that a header can hold: from=shop@example.com, in ASCII behind the @")
	}
	return c, nil
}

// token reports whether s can stand in a header as it is, without being folded or encoded.
func token(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' })
}

func defaultSender(c config) string {
	if a, err := netmail.ParseAddress(c.user); err == nil {
		return a.Address
	}
	if net.ParseIP(c.host) != nil {
		return "no-reply@localhost"
	}
	return "no-reply@" + c.host
}

func (c config) tls() *tls.Config {
	return &tls.Config{ServerName: c.host, RootCAs: c.roots, MinVersion: tls.VersionTLS12}
}
