package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

const (
	operatorName  = "anna"
	operatorToken = "a-token-of-annas"
)

// service is a running outbox dev, built from this tree.
type service struct {
	t                    *testing.T
	api, admin, database string
}

// startService builds the binary and runs it until the test ends.
func startService(t *testing.T, env ...string) *service {
	t.Helper()
	// Not t.TempDir: PostgreSQL's user must be able to reach its data when the tests run as root.
	dir, err := os.MkdirTemp("", "outbox-e2e-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	binary := filepath.Join(dir, "outbox")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/outbox")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))

	s := &service{t: t}
	cmd := exec.Command(binary, "dev", "--data", filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "OUTBOX_ADDR=127.0.0.1:0", "OUTBOX_ADMIN_ADDR=127.0.0.1:0", "DATABASE_URL=",
		"OUTBOX_ADMIN_TOKENS="+operatorName+":"+operatorToken)
	cmd.Env = append(cmd.Env, env...)
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	said, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			for prefix, into := range map[string]*string{"api URL": &s.api, "admin URL": &s.admin, "database URL": &s.database} {
				if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
					*into = strings.TrimSpace(rest)
				}
			}
			if strings.HasPrefix(lines.Text(), "Ctrl-C") {
				close(said)
			}
		}
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(60 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Log(log.String()[max(0, log.Len()-4000):])
		}
	})
	select {
	case <-said:
	case <-ended:
		t.Fatal("dev ended at its start: " + log.String())
	case <-time.After(90 * time.Second):
		t.Fatal("dev did not start")
	}
	s.admin = strings.TrimSuffix(strings.TrimSuffix(s.admin, "/"), "/admin/ui")
	return s
}

func (s *service) call(method, path string, body any, status int, header ...string) (answer map[string]any) {
	s.t.Helper()
	return s.ask(method, s.api+path, body, status, header...)
}

func (s *service) ask(method, url string, body any, status int, header ...string) (answer map[string]any) {
	s.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, bytes.NewReader(encoded))
	require.NoError(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, status, res.StatusCode, string(raw))
	require.NoError(s.t, json.Unmarshal(raw, &answer))
	return answer
}

func (s *service) mailMode(code int) {
	s.t.Helper()
	s.call("PUT", "/dev/mail/mode", map[string]int{"smtp_code": code}, 200)
}

func (s *service) signUp(address string) {
	s.t.Helper()
	s.call("POST", "/v1/signup", map[string]string{"email": address, "password": "correct horse battery", "name": "Somebody"}, 201)
}

// fillCart has the customer make a cart and put something into it.
func (s *service) fillCart(address string) {
	s.t.Helper()
	session := s.call("POST", "/v1/sessions", map[string]string{"email": address, "password": "correct horse battery"}, 201)
	bearer := fmt.Sprint("Bearer ", session["token"])
	cart := s.call("POST", "/v1/carts", map[string]any{}, 201, "Authorization", bearer)
	s.call("POST", fmt.Sprint("/v1/carts/", cart["cart_id"], "/items"), map[string]any{"sku": "filter-beans", "quantity": 2}, 200, "Authorization", bearer)
}

// exec writes to the service's database what no handler of the shop's would.
func (s *service) exec(sql string, args ...any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.database)
	require.NoError(s.t, err)
	_, err = conn.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
	require.NoError(s.t, conn.Close(s.t.Context()))
}
