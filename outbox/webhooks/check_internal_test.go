package webhooks

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

func refusedField(t *testing.T, err error) string {
	t.Helper()
	var invalid *InvalidError
	require.ErrorAs(t, err, &invalid)
	return invalid.Field
}

func TestURLsAreChecked(t *testing.T) {
	t.Parallel()
	s := newSender(Options{Networks: prefixes("127.0.0.0/8", "10.1.0.0/16"), Timeout: time.Second}, nil)
	for _, good := range []string{
		"https://crm.example", "https://crm.example/", "https://crm.example:8443/hooks/a?token=b&c=%20", "HTTPS://CRM.example/x", "https://1.1.1.1/",
		"https://[2606:4700:4700::1111]/", "http://crm.example/", "http://127.0.0.1:8080/", "http://10.1.2.3/", "https://10.1.2.3/", "https://crm.example:65535",
		"https://" + strings.Repeat("a", maxURLBytes-len("https://")),
	} {
		require.NoError(t, s.checkURL(good), good)
	}
	for _, bad := range []string{
		"", "crm.example", "/hooks", "//crm.example/hooks", "ftp://crm.example/", "file:///etc/passwd", "https:", "https:/x", "https://", "https:///x", "https://:443/",
		"https:crm.example", "https://user@crm.example/", "https://user:word@crm.example/", "https://@crm.example/", "https://crm.example/#", "https://crm.example/#x",
		"https://crm.example/a b", "https://crm.example/\n", "https://crm.example/\x00", "https://crm.exämple/", "https://crm.example/?…", "https://crm.example:0/",
		"https://crm.example:65536/", "https://crm.example:/", "https://crm.example:x/", "https://crm.example:-1/", "https://%zz/", "https://[::1", " https://crm.example/",
		"https://192.168.1.1/", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://[fe80::1%25eth0]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
		"http://1.1.1.1/", "http://[2606:4700:4700::1111]/", "https://" + strings.Repeat("a", maxURLBytes),
	} {
		err := s.checkURL(bad)
		require.Equal(t, "url", refusedField(t, err), bad)
		if len(bad) > 20 {
			require.NotContains(t, err.Error(), bad)
		}
	}
}

// What is let through leads to an address that is asked for when it is dialled, and is what net/http makes of it.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://crm.example/hooks?x=y", "http://127.0.0.1:80", "https://[::1]:443/", "https://a@b/", "https://a/#"} {
		f.Add(seed)
	}
	s := newSender(Options{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, nil)
	f.Fuzz(func(t *testing.T, raw string) {
		if s.checkURL(raw) != nil {
			return
		}
		u, err := url.Parse(raw)
		require.NoError(t, err)
		require.Nil(t, u.User)
		require.Empty(t, u.Fragment)
		require.NotEmpty(t, u.Hostname())
		require.NotNil(t, s.clients[u.Scheme])
		_, err = http.NewRequestWithContext(t.Context(), http.MethodPost, raw, nil)
		require.NoError(t, err)
		require.NotContains(t, strings.TrimSuffix(shown(raw), "?…"), "?")
	})
}

func TestNamesAndTypesAreChecked(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "crm", "crm-2", "crm_eu-1", strings.Repeat("a", 40)} {
		require.NoError(t, checkName(good))
	}
	for _, bad := range []string{"", "-", "a-", "-a", "a--b", "A", "a.b", "a b", "ä", "a\n", strings.Repeat("a", 41)} {
		require.Equal(t, "name", refusedField(t, checkName(bad)), bad)
	}
	require.NoError(t, checkTypes([]string{"user.signed_up", "cart.*", "*"}))
	for _, bad := range [][]string{nil, {}, make([]string, 51)} {
		require.Equal(t, "types", refusedField(t, checkTypes(bad)), bad)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	of := func(n int) string { return secretPrefix + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, good := range []string{of(24), of(25), of(32), of(64), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
		same, err := givenOrNew(good)
		require.NoError(t, err)
		require.Equal(t, good, same)
	}
	for _, bad := range []string{of(23), of(65), "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + strings.Repeat("-_", 20), of(32) + "\n", of(32) + "=", " " + of(32), of(25)[:len(of(25))-2]} {
		_, err := givenOrNew(bad)
		require.Equal(t, "secret", refusedField(t, err), bad)
		require.NotContains(t, err.Error(), strings.TrimPrefix(bad, secretPrefix)+"x")
	}
	one, err := givenOrNew("")
	require.NoError(t, err)
	other, err := givenOrNew("")
	require.NoError(t, err)
	require.NotEqual(t, one, other)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, secretPrefix))
	require.NoError(t, err)
	require.Len(t, key, 32)
}

// The example that the specification's libraries are held to.
func TestSignatureOfTheSpecification(t *testing.T) {
	t.Parallel()
	m := message{
		id: "msg_p5jXN8AQM9LWM0D4loKWxJek", body: []byte(`{"test": 2432232314}`),
		secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", newSecret()},
	}
	h, err := headers(t.Context(), m, time.Unix(1614265330, 999_999_999))
	require.NoError(t, err)
	require.Equal(t, m.id, h.Get("webhook-id"))
	require.Equal(t, "1614265330", h.Get("webhook-timestamp"))
	signatures := strings.Split(h.Get("webhook-signature"), " ")
	require.Len(t, signatures, 2)
	require.Equal(t, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", signatures[0])
	for _, secret := range m.secrets {
		hook, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, hook.VerifyIgnoringTimestamp(m.body, h))
		require.Error(t, hook.VerifyIgnoringTimestamp(append(m.body, ' '), h))
		require.Error(t, hook.Verify(m.body, h), "it is old")
	}
	_, err = headers(t.Context(), message{secrets: []string{"whsec_?canary?"}}, time.Now())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "canary")
}

func TestShownURLsHaveNoQuery(t *testing.T) {
	t.Parallel()
	require.Equal(t, "https://crm.example/hooks?…", shown("https://crm.example/hooks?token=canary"))
	require.Equal(t, "https://crm.example/hooks", shown("https://crm.example/hooks"))
	var invalid *InvalidError
	require.True(t, errors.As(newSender(Options{}, nil).checkURL(shown("https://crm.example/hooks?token=canary")), &invalid), "nobody takes it for the URL")
}
