package main_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"
)

// refusingServer takes no mail for anybody, and says so with the address in its words, as servers do.
type refusingServer struct {
	url string

	mu    sync.Mutex
	words []string
}

func newRefusingServer(t *testing.T) *refusingServer {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &refusingServer{url: "smtp://" + socket.Addr().String() + "?tls=none"}
	server := smtp.NewServer(r)
	server.Domain = "localhost"
	go func() { _ = server.Serve(socket) }()
	t.Cleanup(func() { _ = server.Close() })
	return r
}

// refused is what it has said.
func (r *refusingServer) refused() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.words, "\n")
}

func (r *refusingServer) NewSession(*smtp.Conn) (smtp.Session, error) { return refusingSession{r}, nil }

type refusingSession struct{ of *refusingServer }

func (refusingSession) Mail(string, *smtp.MailOptions) error { return nil }
func (refusingSession) Data(io.Reader) error                 { return nil }
func (refusingSession) Reset()                               {}
func (refusingSession) Logout() error                        { return nil }

func (s refusingSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	refusal := &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "<" + to + ">: there is nobody of that name here"}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.words = append(s.of.words, refusal.Message)
	return refusal
}

// readAll is the body of a response, which it closes.
func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return string(raw)
}
