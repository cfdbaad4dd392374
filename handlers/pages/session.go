package pages

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	sessionCookie = "outbox_session"
	sessionLasts  = 12 * time.Hour
)

// sessions are signed cookies. Nothing of them is kept: every process that has an operator's token knows the operator's sessions, and
// with the token they end, wherever it is taken out of the configuration. Before that a session ends by time only: to log out clears the
// cookie, and a copy of it would stay good for the rest of its 12 hours.
type sessions struct{ operators []operator }

type operator struct {
	name string
	hash [sha256.Size]byte // of the token
	key  []byte            // made of the token, for its sessions
}

func newSessions(tokens map[string]string) sessions {
	var s sessions
	for token, name := range tokens {
		key := hmac.New(sha256.New, []byte(token))
		key.Write([]byte("pgoutbox session 1"))
		s.operators = append(s.operators, operator{name, sha256.Sum256([]byte(token)), key.Sum(nil)})
	}
	return s
}

// withToken is the operator who has the token. All tokens are compared, in constant time.
func (s sessions) withToken(token string) (found operator, ok bool) {
	given := sha256.Sum256([]byte(strings.TrimSpace(token)))
	for _, o := range s.operators {
		if subtle.ConstantTimeCompare(given[:], o.hash[:]) == 1 {
			found, ok = o, true
		}
	}
	return found, ok
}

var encoding = base64.RawURLEncoding.Strict()

// seal is the value of a session's cookie: name.expiry.signature.
func (o operator) seal(expires time.Time) string {
	said := encoding.EncodeToString([]byte(o.name)) + "." + strconv.FormatInt(expires.Unix(), 10)
	return said + "." + encoding.EncodeToString(o.sign(said))
}

func (o operator) sign(said string) []byte {
	mac := hmac.New(sha256.New, o.key)
	mac.Write([]byte(said))
	return mac.Sum(nil)
}

// open is the name in a cookie's value, if one of the operators with that name signed it and its time has not come.
func (s sessions) open(value string, now time.Time) (string, bool) {
	last := strings.LastIndexByte(value, '.')
	if last < 0 {
		return "", false
	}
	said := value[:last]
	signature, err := encoding.DecodeString(value[last+1:])
	if err != nil {
		return "", false
	}
	encoded, expiry, _ := strings.Cut(said, ".")
	name, err := encoding.DecodeString(encoded)
	if err != nil {
		return "", false
	}
	expires, err := strconv.ParseInt(expiry, 10, 64)
	if err != nil || now.Unix() >= expires {
		return "", false
	}
	good := false
	for _, o := range s.operators {
		if o.name == string(name) && hmac.Equal(signature, o.sign(said)) {
			good = true
		}
	}
	return string(name), good
}

// actor is who sent the request.
func (s sessions) actor(r *http.Request) (string, bool) {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", false
	}
	return s.open(cookie.Value, time.Now())
}

// setCookie gives the client a session, or with an empty value none. It is Secure where the client came by TLS, which a proxy that
// ends it has to say by X-Forwarded-Proto.
func setCookie(c echo.Context, value string, lasts time.Duration) {
	age := int(lasts.Seconds())
	if value == "" {
		age = -1
	}
	c.SetCookie(&http.Cookie{
		Name: sessionCookie, Value: value, Path: "/admin", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: c.Scheme() == "https",
	})
}
