package mailsink

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzParse: whatever was accepted as a mail can be shown, and takes no more room than it came in, three times over for what is no
// text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n", "no mail at all\xff", "Subject: =?utf-16?q?=00?= =?x?b?!?=\r\n\r\n", "To: x", "\r\n", "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n////",
		"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n", "Return-Path: <<a>>\xfe\r\nDelivered-To: \xff\r\nDelivered-To: b\r\nMessage-ID: <>\xed\xa0\x80\r\nX-Correlation-ID: \x00\r\n\r\n=\xff", strings.Repeat("Content-Type: multipart/a; boundary=a\r\n\r\n--a\r\n", 40),
		"Content-Transfer-Encoding: quoted-printable\r\n\r\n=ZZ=\r\n=C3=BC", "Subject: =?utf-8?q?" + strings.Repeat("=C3=BC", 30) + "?=\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := parse("1", time.Unix(1, 0), raw)
		size := 0
		for _, s := range append([]string{m.From, m.Subject, m.MessageID, m.CorrelationID, m.Text}, m.To...) {
			if size += len(s); !utf8.ValidString(s) {
				t.Errorf("%q is not UTF-8", s)
			}
		}
		if size > 3*len(raw) {
			t.Errorf("%d bytes became %d", len(raw), size)
		}
		if _, err := json.Marshal(m); err != nil {
			t.Error(err)
		}
		if m.To == nil || m.ID != "1" {
			t.Errorf("%+v", m)
		}
	})
}
