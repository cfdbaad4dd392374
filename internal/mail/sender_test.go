package mail_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/mail"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
)

func startSink(t *testing.T) (*mailsink.Sink, string) {
	t.Helper()
	dir := t.TempDir()
	sink, err := mailsink.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := sink.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return sink, dir
}

func newSender(t *testing.T, url string) *mail.Sender {
	t.Helper()
	sender, err := mail.NewSender(url)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

func message(sender *mail.Sender) mail.Message {
	id := uuid.Must(uuid.NewV7())
	return mail.Message{
		To: "ada@example.com", ToName: "Ada Łovelace\r\nBcc: evil@example.com", Subject: "Grüße", Text: "Hello =\n.\n\nüber\n",
		HTML: "<p>Hello</p>", MessageID: sender.MessageID(id, "welcome"), CorrelationID: "corr-1", EventID: id,
	}
}

func TestSendHeadersAndParts(t *testing.T) {
	t.Parallel()
	sink, dir := startSink(t)
	sender := newSender(t, sink.URL())
	m := message(sender)
	if err := sender.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files: %v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := netmail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"Message-ID":       "<" + m.EventID.String() + ".welcome@example.com>",
		"X-Correlation-ID": "corr-1",
		"X-Event-ID":       m.EventID.String(),
		"Auto-Submitted":   "auto-generated",
		"Bcc":              "",
	} {
		if got := parsed.Header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	if got := parsed.Header.Get("Content-Type"); !strings.HasPrefix(got, "multipart/alternative") {
		t.Errorf("Content-Type %q", got)
	}
	got := sink.Messages()
	if len(got) != 1 || got[0].Subject != "Grüße" || got[0].Text != m.Text || got[0].To[0] != "ada@example.com" || len(got[0].To) != 1 ||
		got[0].MessageID != m.MessageID || got[0].CorrelationID != "corr-1" || got[0].From != "shop@example.com" {
		t.Errorf("the sink got %+v", got)
	}
}

func TestSendTellsRefusalsApart(t *testing.T) {
	t.Parallel()
	sink, _ := startSink(t)
	sender := newSender(t, sink.URL())
	for code, permanent := range map[int]bool{421: false, 451: false, 550: true, 554: true, 535: false} {
		if err := sink.SetMode(code); err != nil {
			t.Fatal(err)
		}
		err := sender.Send(t.Context(), message(sender))
		var refused *mail.RefusedError
		if !errors.As(err, &refused) || refused.Code != code || refused.Temporary == permanent || mail.IsPermanent(err) != permanent {
			t.Errorf("code %d: got %#v", code, err)
		}
	}
	if err := sink.SetMode(250); err != nil {
		t.Fatal(err)
	}
	if err := sender.Send(t.Context(), message(sender)); err != nil || len(sink.Messages()) != 1 {
		t.Errorf("after the refusals: %v, %d messages", err, len(sink.Messages()))
	}
}

func TestSendRefusesWhatCannotBeAMail(t *testing.T) {
	t.Parallel()
	sink, _ := startSink(t)
	sender := newSender(t, sink.URL())
	for _, to := range []string{"", "canary", "Ada <canary@example.com>", "canary@example.com\r\nRCPT TO:<x@example.com>", "a@b, canary@c"} {
		m := message(sender)
		m.To = to
		err := sender.Send(t.Context(), m)
		if !errors.Is(err, mail.ErrInvalidMessage) || !mail.IsPermanent(err) || strings.Contains(err.Error(), "canary") {
			t.Errorf("to %q: %v", to, err)
		}
	}
}

func TestSendToNobodyListening(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	sender := newSender(t, "smtp://"+listener.Addr().String())
	err = sender.Send(t.Context(), message(sender))
	var refused *mail.RefusedError
	if !errors.As(err, &refused) || !refused.Temporary || refused.Code != 0 {
		t.Errorf("got %#v", err)
	}
}

// A server that takes the connection and never says a word must not hold a worker longer than its context.
func TestSendEndsWithItsContext(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepted sync.WaitGroup
	accepted.Add(1)
	t.Cleanup(func() { _ = listener.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := listener.Accept()
		accepted.Done()
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	go func() { accepted.Wait(); cancel() }()
	sender := newSender(t, "smtp://"+listener.Addr().String())
	err = sender.Send(ctx, message(sender))
	var refused *mail.RefusedError
	if !errors.As(err, &refused) || !refused.Temporary || !errors.Is(err, context.Canceled) {
		t.Errorf("got %#v", err)
	}
}
