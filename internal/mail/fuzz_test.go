package mail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	netmail "net/mail"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

const canary = "c4n4ry"

// FuzzParseURL: an SMTP_URL is refused without a word of its password, or gives a sender that is one.
func FuzzParseURL(f *testing.F) {
	for _, s := range [][2]string{
		{"smtp://u:", "@mail.example.com:25?tls=required"},
		{"smtp://u:12", "3?4@h"},
		{"smtp://u:1?", "@h"},
		{"smtps://me%40example.org:", "@h?from=Shop+%3Cshop@example.net%3E"},
		{"smtp://u:%zz", "@h"},
		{"smtp://u:a/", "@h"},
		{"smtp://u:a#", "@h"},
		{"smtp://h:2", "5"},
		{"smtp://[::1%25", "]:25"},
		{"smtp://a<b>", ".com"},
		{"smtp://ä", ".com"},
		{"smtp://u@h?from=%22a+b%22@", ".com"},
		{"smtp://h?from==?utf-8?q?=0d=0aBcc:?=<a@", ">"},
		{"smtp://h?from=a@[1.2.3.4]&", "=1"},
		{"", "smtp://h"},
		{"smtp://u:x\n", "@h"},
		{"smtp://a@b@", ""},
		{"SMTP://h", "?FROM=a@b"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		sender, err := NewSender(before + canary + after)
		if err != nil {
			if strings.Contains(err.Error(), canary) || len(err.Error()) > 200 {
				t.Errorf("the error repeats the URL: %v", err)
			}
			return
		}
		c := sender.config
		if c.port < 1 || c.port > 65535 || c.host == "" {
			t.Errorf("%+v", c)
		}
		parsed, err := netmail.ParseAddress(c.from.String())
		if err != nil || parsed.Address != c.from.Address {
			t.Errorf("the sender %q is %v, %v", c.from.String(), parsed, err)
		}
		written(t, sender, Message{To: "ada@example.com", Subject: "s", Text: "t", MessageID: sender.MessageID(uuid.New(), "welcome")})
	})
}

// FuzzMessage: whatever people are called and events say, a mail has the headers that it should, one recipient, and the text; or
// it is refused for good.
func FuzzMessage(f *testing.F) {
	for _, s := range [][5]string{
		{"ada@example.com", "Ada Łovelace\r\nBcc: evil@example.com", "Grüße", "Hello =\n.\n\nüber\n", "corr-1"},
		{"ada@example.com", "\"A\" <b@c>, d@e", "a\r\n\r\nbody", "\x00\x1f", "a\r\nX-Evil: 1"},
		{"ada@example.com\r\nRCPT TO:<x@y>", "", "s", "t", ""},
		{"a@b, c@d", "x", "s", "t", "c"},
		{`"a b"@c`, "\xff\xfe", "\xff", "\xff", "\xff"},
		{"ä@b", "=?utf-8?q?=0d=0a?=", "=?utf-8?q?=0d=0a?=", strings.Repeat("x", 2000), strings.Repeat("c", 2000)},
		{"a@b", strings.Repeat("ü", 200), strings.Repeat("ü ", 200), "a\rb\n\rc\r\n", "."},
		{"a@b", " ", " ", " ", " "},
		{"a@b", "\u2028\u0085", "\u202e", ".\r\n.", "\t"},
	} {
		f.Add(s[0], s[1], s[2], s[3], "<p>"+s[3], s[4])
	}
	sender, err := NewSender("smtp://mail.example.com?from=Shop+%3Cshop@example.com%3E")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to, name, subject, text, html, correlation string) {
		if len(name) > 800 || len(subject) > 800 {
			return // a line has 998 bytes, and a name 200 characters
		}
		id := uuid.New()
		written(t, sender, Message{
			To: to, ToName: name, Subject: subject, Text: text, HTML: html, MessageID: sender.MessageID(id, "welcome"), CorrelationID: correlation, EventID: id,
		})
	})
}

// written writes the mail and reads it as a mail server does.
func written(t *testing.T, s *Sender, m Message) {
	t.Helper()
	msg, err := s.message(m)
	if err != nil {
		if !IsPermanent(err) || m.To != "" && strings.Contains(err.Error(), m.To) && len(m.To) > 10 {
			t.Errorf("refused as %v", err)
		}
		return
	}
	var raw bytes.Buffer
	if _, err := msg.WriteTo(&raw); err != nil {
		t.Errorf("it cannot be written: %v", err)
		return
	}
	for line := range strings.Lines(raw.String()) {
		if !strings.HasSuffix(line, "\r\n") && strings.HasSuffix(line, "\n") || strings.Contains(strings.TrimSuffix(line, "\r\n"), "\r") || len(line) > 1000 {
			t.Errorf("no line of a mail: %q", line)
		}
	}
	read, err := netmail.ReadMessage(bytes.NewReader(raw.Bytes()))
	if err != nil {
		t.Errorf("it cannot be read: %v\n%s", err, raw.String())
		return
	}
	known := []string{
		"Date", "Mime-Version", "Message-Id", "Subject", "User-Agent", "X-Mailer", "From", "To", "Content-Type", "Content-Transfer-Encoding", "Auto-Submitted", "X-Correlation-Id", "X-Event-Id",
	}
	for name, values := range read.Header {
		if !slices.Contains(known, name) || len(values) != 1 {
			t.Errorf("the header %s is %q\n%s", name, values, raw.String())
		}
	}
	for name, want := range map[string]string{"To": m.To, "From": s.config.from.Address} {
		got, err := read.Header.AddressList(name)
		if err != nil || len(got) != 1 || got[0].Address != want {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	if got := read.Header.Get("Message-ID"); got != "<"+m.MessageID+">" {
		t.Errorf("Message-ID %q", got)
	}
	if got, err := new(mime.WordDecoder).DecodeHeader(read.Header.Get("Subject")); err != nil || utf8.ValidString(m.Subject) && !strings.Contains(m.Subject, "=?") && strings.TrimSpace(got) != strings.TrimSpace(m.Subject) {
		t.Errorf("the subject %q is %q, %v", m.Subject, got, err)
	}
}

// FuzzReplies: whatever a server says, a mail was taken over or it was not, and the error has nothing of the server's words.
func FuzzReplies(f *testing.F) {
	for _, s := range []string{
		"220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n", "554 no " + canary + "\r\n", "220 hi\r\n250 hi\r\n550 5.1.1 " + canary + "\r\n", "220-a\r\n220 b\r\n250-SIZE 1\r\n250 8BITMIME\r\n250 ok\r\n550 no\r\n",
		"220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n452 4.2.2 full\r\n", "", "\xff\xff", "220\r\n", "99999 \r\n", "220 hi\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n220 go\r\n", strings.Repeat("220-x\r\n", 3000), "220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n",
		"220 hi\r\n250 hi\r\n250 ok\r\n250 ok\r\n354 go\r\n000 ?\r\n", "220 hi\r\n250 hi\r\n250 ok\r\n551 5.1.999999999 " + canary + "\r\n",
	} {
		f.Add([]byte(s))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	var says atomic.Pointer[[]byte]
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talk(conn, *says.Load())
		}
	}()
	f.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	sender, err := NewSender("smtp://u:p@" + listener.Addr().String() + "?tls=none")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, replies []byte) {
		says.Store(&replies)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := sender.Send(ctx, Message{To: "ada@example.com", Subject: "s", Text: "t", MessageID: "m@example.com"})
		if err == nil {
			if !bytes.Contains(replies, []byte("354")) {
				t.Error("nobody has asked for it")
			}
			return
		}
		var refused *RefusedError
		if !errors.As(err, &refused) || ctx.Err() != nil {
			t.Fatalf("%v", err)
		}
		if text := err.Error(); strings.Contains(text, canary) || strings.Contains(text, "ada@") || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\r\n") || len(text) > 300 {
			t.Errorf("%q", text)
		}
	})
}

// talk says all that there is to say, and listens to the end: what is closed with something unread loses what was said last.
func talk(conn net.Conn, replies []byte) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write(replies); err != nil {
		return
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, conn)
}
