package mailsink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func start(t *testing.T, dir string) *Sink {
	t.Helper()
	sink, err := Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, sink) })
	return sink
}

func stop(t *testing.T, sink *Sink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := sink.Close(ctx); err != nil {
		t.Error(err)
	}
}

func address(url string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "smtp://"), "?")
	return host
}

func send(url, id, body string) error {
	text := fmt.Sprintf("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <%s>\r\nX-Correlation-ID: c-%s\r\n\r\n%s", id, id, body)
	return smtp.SendMail(address(url), nil, "shop@example.com", []string{"a@example.com", "b@example.com"}, []byte(text))
}

func replyCode(err error) int {
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return reply.Code
	}
	return 0
}

func TestKeepsAndReadsBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	sink := start(t, dir)
	for i := range 3 {
		if err := send(sink.URL(), fmt.Sprintf("m%d@x", i), "one\r\n.two\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	before := sink.Messages()
	if err := sink.SetMode(451); err != nil {
		t.Fatal(err)
	}
	stop(t, sink)
	// What a crash leaves half written was never acknowledged.
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir)
	if again.Mode() != 451 {
		t.Errorf("mode %d", again.Mode())
	}
	after := again.Messages()
	if len(before) != 3 || len(after) != 3 {
		t.Fatalf("%d messages, after the restart %d", len(before), len(after))
	}
	for i, m := range after {
		if fmt.Sprint(m) != fmt.Sprint(before[i]) {
			t.Errorf("message %d was %+v and is %+v", i, before[i], m)
		}
		if m.MessageID != fmt.Sprintf("m%d@x", i) || m.CorrelationID != "c-"+m.MessageID || m.Subject != "Grüße" ||
			m.Text != "one\n.two\n" || m.From != "shop@example.com" || fmt.Sprint(m.To) != "[a@example.com b@example.com]" || m.ReceivedAt.IsZero() {
			t.Errorf("message %d: %+v", i, m)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	sink := start(t, t.TempDir())
	for _, bad := range []int{-1, 1, 200, 354, 399, 600} {
		if err := sink.SetMode(bad); !errors.Is(err, ErrMode) {
			t.Errorf("mode %d: %v", bad, err)
		}
	}
	for _, code := range []int{421, 451, 550} {
		if err := sink.SetMode(code); err != nil {
			t.Fatal(err)
		}
		if err := send(sink.URL(), "m@x", "text"); replyCode(err) != code {
			t.Errorf("mode %d: got %v", code, err)
		}
	}
	for _, code := range []int{0, 250} {
		if err := sink.SetMode(code); err != nil {
			t.Fatal(err)
		}
		if err := send(sink.URL(), "m@x", "text"); err != nil {
			t.Errorf("mode %d: %v", code, err)
		}
	}
	if n := len(sink.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// A mode that is set while a message is under way holds for that message.
func TestModeChangesInMidMessage(t *testing.T) {
	t.Parallel()
	sink := start(t, t.TempDir())
	client, err := smtp.Dial(address(sink.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := errors.Join(client.Mail("a@example.com"), client.Rcpt("b@example.com")); err != nil {
		t.Fatal(err)
	}
	data, err := client.Data()
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.SetMode(452); err != nil {
		t.Fatal(err)
	}
	if _, err := data.Write([]byte("Subject: s\r\n\r\ntext")); err != nil {
		t.Fatal(err)
	}
	if err := data.Close(); replyCode(err) != 452 || len(sink.Messages()) != 0 {
		t.Errorf("got %v, %d messages", err, len(sink.Messages()))
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	sink := start(t, t.TempDir())
	if err := send(sink.URL(), "big@x", strings.Repeat(strings.Repeat("x", 70)+"\r\n", maxMessageBytes/70)); replyCode(err) != 552 {
		t.Errorf("more than a MiB: %v", err)
	}
	client, err := smtp.Dial(address(sink.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if err := client.Mail("a@example.com"); err != nil {
		t.Fatal(err)
	}
	for range maxRecipients {
		if err := client.Rcpt("b@example.com"); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.Rcpt("b@example.com"); replyCode(err) != 452 {
		t.Errorf("one recipient too many: %v", err)
	}
	if n := len(sink.Messages()); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sink := start(t, dir)
	const clients, each = 16, 10
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				if err := send(sink.URL(), fmt.Sprintf("%d.%d@x", c, i), "text"); err != nil {
					t.Error(err)
				}
				sink.Messages()
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, m := range sink.Messages() {
		ids[m.MessageID] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if len(ids) != clients*each || len(files) != clients*each || err != nil {
		t.Errorf("%d messages, %d files, %v", len(ids), len(files), err)
	}
}

// Close must not wait for ever for a client that stays connected and says nothing.
func TestCloseCutsTheIdle(t *testing.T) {
	t.Parallel()
	sink, err := Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client, err := smtp.Dial(address(sink.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sink.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := client.Noop(); err == nil {
		t.Error("the connection is still open")
	}
	if err := sink.Close(t.Context()); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func TestParseMultipart(t *testing.T) {
	t.Parallel()
	raw := strings.ReplaceAll(`Return-Path: <a@x>
Subject: s
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/html

<p>no</p>
--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

w7xiZXI=
--inner--
--outer--
`, "\n", "\r\n")
	if m := parse("1", time.Unix(1, 0), []byte(raw)); m.Text != "über" || m.From != "a@x" {
		t.Errorf("%+v", m)
	}
	if m := parse("1", time.Unix(1, 0), []byte("no mail at all\xff")); m.Text == "" {
		t.Errorf("%+v", m)
	}
}
