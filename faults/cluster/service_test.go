package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/faults/build"
)

// binary is the service, built once for the tests of the package. TestMain removes it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outbox-binary-")
	if err != nil {
		return "", err
	}
	built = dir
	return build.Service(context.Background(), dir)
})

var built string

// outbox runs a command of the service to its end.
func outbox(t *testing.T, env []string, args ...string) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.CommandContext(bounded(t), path, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

// service is a running outbox serve.
type service struct {
	t     *testing.T
	log   string
	ended chan struct{}
	api   string
}

func startService(t *testing.T, env ...string) *service {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	s := &service{t: t, log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{})}
	log, err := os.Create(s.log)
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	cmd := exec.Command(path, "serve")
	cmd.Env = append(os.Environ(), "OUTBOX_ADDR=127.0.0.1:0", "OUTBOX_ADMIN_ADDR=127.0.0.1:0", "OUTBOX_PAYMENTS=sandbox", "OUTBOX_RATE_LIMITS=off")
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	go func() {
		_ = cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-s.ended
		if t.Failed() {
			t.Log(s.said())
		}
	})
	eventually(t, "it serves", func() bool {
		select {
		case <-s.ended:
			t.Fatal(s.said())
		default:
		}
		for line := range strings.Lines(s.said()) {
			var said struct{ Msg, API string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				s.api = "http://" + said.API
			}
		}
		return s.api != ""
	})
	return s
}

// as is the service for another test, which then is the one that fails.
func (s *service) as(t *testing.T) *service {
	other := *s
	other.t = t
	return &other
}

func (s *service) said() string {
	said, _ := os.ReadFile(s.log)
	return string(said)
}

// call makes a request as the bearer and returns the answer's status and fields.
func (s *service) call(method, path, bearer string, body any, header ...string) (int, map[string]any) {
	s.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(s.t, err)
	req, err := http.NewRequestWithContext(bounded(s.t), method, s.api+path, bytes.NewReader(encoded))
	require.NoError(s.t, err)
	if body == nil {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(s.t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(s.t, err)
	fields := map[string]any{}
	_ = json.Unmarshal(raw, &fields)
	return res.StatusCode, fields
}

// text is a call that must succeed, and a field of its answer. A busy machine may say 503, and to come back.
func (s *service) text(field, method, path, bearer string, body any, header ...string) string {
	s.t.Helper()
	if method == http.MethodPost && path != "/v1/sessions" {
		header = append(header, "Idempotency-Key", rand.Text())
	}
	var text string
	eventually(s.t, method+" "+path, func() bool {
		status, fields := s.call(method, path, bearer, body, header...)
		if status == http.StatusServiceUnavailable {
			return false
		}
		require.Less(s.t, status, 300, "%s %s: %v", method, path, fields)
		text, _ = fields[field].(string)
		return true
	})
	return text
}

// buy signs a customer up, has it check out, and waits until the order has an end.
func (s *service) buy(email string) (status string) {
	s.t.Helper()
	credentials := map[string]any{"email": email, "password": "correct horse battery", "name": "A customer"}
	s.text("user_id", "POST", "/v1/signup", "", credentials)
	delete(credentials, "name")
	bearer := s.text("token", "POST", "/v1/sessions", "", credentials)
	cart := "/v1/carts/" + s.text("cart_id", "POST", "/v1/carts", bearer, nil)
	s.text("", "POST", cart+"/items", bearer, map[string]any{"sku": "espresso-beans", "quantity": 1})
	order := s.text("order_id", "POST", cart+"/checkout", bearer, map[string]any{"payment_method": "pm_card_visa"})
	eventually(s.t, "the order has an end", func() bool {
		status = s.text("status", "GET", "/v1/orders/"+order, bearer, nil, "Prefer", "wait=10")
		return status != "processing"
	})
	return status
}
