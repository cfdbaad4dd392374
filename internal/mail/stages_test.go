package mail

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// cut is an answer that does not come: the connection is closed in its place.
const cut = "cut"

// scripted is a server that answers each step as it is told, and otherwise as one does that takes everything. It counts what it has been given
// to its end.
type scripted struct {
	answers map[string]string // by step: connect, EHLO, MAIL, RCPT, DATA, and . for the end of the data

	mu    sync.Mutex
	given []string
}

func (s *scripted) start(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.talk(conn)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = listener.Close(); served.Wait() })
	return listener.Addr().String()
}

func (s *scripted) talk(conn net.Conn) {
	lines := bufio.NewScanner(conn)
	say := func(step, usual string) bool {
		if said, ok := s.answers[step]; ok {
			usual = said
		}
		if usual == cut {
			return false
		}
		_, err := io.WriteString(conn, usual+"\r\n")
		return err == nil
	}
	if !say("connect", "220 hi") {
		return
	}
	for lines.Scan() {
		verb, _, _ := strings.Cut(strings.ToUpper(lines.Text()), " ")
		usual := "250 ok"
		if verb == "DATA" {
			usual = "354 go"
		}
		if !say(verb, usual) || verb == "QUIT" {
			return
		}
		if verb != "DATA" || s.answers[verb] != "" {
			continue
		}
		var mail strings.Builder
		for lines.Scan() && lines.Text() != "." {
			mail.WriteString(lines.Text() + "\n")
		}
		s.mu.Lock()
		s.given = append(s.given, mail.String())
		s.mu.Unlock()
		if !say(".", "250 taken") {
			return
		}
	}
}

// A refusal is temporary or permanent by its code, at whatever step it comes, and says the step. What says nothing against this mail is temporary:
// a server that is not there, or that breaks off.
func TestRefusalsByStep(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		step, answer, stage string
		code                int
		permanent           bool
	}{
		{"connect", "421 busy", "connect", 421, false},
		{"connect", "554 not for you", "connect", 554, false},
		{"connect", cut, "connect", 0, false},
		{"EHLO", cut, "connect", 0, false},
		{"MAIL", "451 4.3.0 later", "MAIL FROM", 451, false},
		{"MAIL", "550 5.7.1 not you", "MAIL FROM", 550, true},
		{"MAIL", cut, "MAIL FROM", 0, false},
		{"RCPT", "450 4.2.1 greylisted", "RCPT TO", 450, false},
		{"RCPT", "550 5.1.1 nobody", "RCPT TO", 550, true},
		{"RCPT", cut, "RCPT TO", 0, false},
		{"DATA", "452 4.3.1 full", "DATA", 452, false},
		{"DATA", "554 5.6.0 no", "DATA", 554, true},
		{"DATA", cut, "DATA", 0, false},
		{".", "451 4.7.1 later", "DATA", 451, false},
		{".", "552 5.3.4 too large", "DATA", 552, true},
		{".", cut, "DATA", 0, false},
	} {
		t.Run(tt.step+" "+tt.answer, func(t *testing.T) {
			t.Parallel()
			server := &scripted{answers: map[string]string{tt.step: tt.answer}}
			err := send(t, "smtp://"+server.start(t)+"?tls=none", nil, "ada@example.com")
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Stage != tt.stage || refused.Code != tt.code || refused.Temporary == tt.permanent || IsPermanent(err) != tt.permanent {
				t.Errorf("got %#v", err)
			}
			if tt.code == 0 && refused != nil && refused.Err == nil {
				t.Error("it does not say what broke")
			}
			if taken := tt.step == "." && tt.answer == cut; refused != nil && refused.MayBeSent != taken || strings.Contains(err.Error(), "may have taken") != taken {
				t.Errorf("whether it may be sent all the same: %v", err)
			}
		})
	}
}

// What a server took over is sent, whatever becomes of the goodbye.
func TestLostGoodbye(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"RSET", "QUIT"} {
		server := &scripted{answers: map[string]string{step: cut}}
		if err := send(t, "smtp://"+server.start(t)+"?tls=none", nil, "ada@example.com"); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
}

// A server that offers no encryption gets a mail where that is allowed, and none where it is required, with or without a login.
func TestEncryptionNotOffered(t *testing.T) {
	t.Parallel()
	for query, sent := range map[string]int{"": 1, "?tls=none": 1, "?tls=required": 0} {
		server := &scripted{}
		err := send(t, "smtp://"+server.start(t)+query, nil, "ada@example.com")
		server.mu.Lock()
		if len(server.given) != sent || (err == nil) != (sent == 1) || IsPermanent(err) {
			t.Errorf("%q: %d mails, %v", query, len(server.given), err)
		}
		server.mu.Unlock()
	}
}

// A copy of a mail, sent because nobody knew whether the first was taken, has the first one's Message-ID.
func TestCopyHasTheSameMessageID(t *testing.T) {
	t.Parallel()
	server := &scripted{answers: map[string]string{".": cut}}
	sender, err := NewSender("smtp://" + server.start(t) + "?tls=none&from=shop@example.com")
	if err != nil {
		t.Fatal(err)
	}
	id := sender.MessageID([16]byte{1}, "receipt")
	for range 2 {
		if err := sender.Send(t.Context(), Message{To: "ada@example.com", Subject: "s", Text: "t", HTML: "<p>t</p>", MessageID: id}); err == nil {
			t.Error("it was not cut")
		}
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.given) != 2 {
		t.Fatalf("%d mails", len(server.given))
	}
	for _, mail := range server.given {
		plain, html := strings.Index(mail, "Content-Type: text/plain"), strings.Index(mail, "Content-Type: text/html")
		if strings.Count(mail, "Message-ID: <01000000-0000-0000-0000-000000000000.receipt@example.com>\n") != 1 ||
			!strings.Contains(mail, "multipart/alternative") || plain < 0 || html < plain { // the last part is the one that is preferred
			t.Errorf("%s", mail)
		}
	}
}
