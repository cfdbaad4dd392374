package mail

import (
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url        string
		port       int
		encryption encryption
		from       string
		domain     string
	}{
		{"smtp://mail.example.com", 587, opportunistic, "no-reply@mail.example.com", "mail.example.com"},
		{"smtp://127.0.0.1:1025?tls=none", 1025, none, "no-reply@localhost", "localhost"},
		{"smtp://me%40example.org:pw@mail.example.com?tls=required", 587, required, "me@example.org", "example.org"},
		{"smtps://u:p@mail.example.com/?from=Shop+%3Cshop@example.net%3E", 465, implicit, "shop@example.net", "example.net"},
		{"smtps://mail.example.com:4465?from=shop@example.net", 4465, implicit, "shop@example.net", "example.net"},
	} {
		c, err := parseURL(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if c.port != tt.port || c.encryption != tt.encryption || c.from.Address != tt.from || c.domain != tt.domain {
			t.Errorf("%s: got %+v", tt.url, c)
		}
	}
}

func TestParseURLRefusesWithoutTellingThePassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "mail.example.com", "http://u:s3cret@h", "smtp://", "smtp://u:s3cret@h:99999", "smtp://u:s3cret@h:x",
		"smtp://u:s3cret@h?tls=maybe", "smtps://u:s3cret@h?tls=none", "smtp://u:s3cret@h?from=nobody", "smtp://u:s3cret@h/path",
		"smtp://u:s3cret@h?form=a@b.c", "smtp://u:s3cret@h?a;b", "smtp://u:s3cret@h\x00",
	} {
		_, err := NewSender(url)
		if err == nil {
			t.Errorf("%q was taken", url)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error tells the password: %v", url, err)
		}
	}
}
