package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// binary is the real binary, and faultyBinary the one that a harness can tell to die; each is built once for all tests of the
// package.
var (
	binary       = sync.OnceValues(func() (string, error) { return build("outbox") })
	faultyBinary = sync.OnceValues(func() (string, error) { return build("outbox-faults", "-tags=faults") })
	builds       = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "outbox-binary-") })
	built        atomic.Bool
)

func build(name string, flags ...string) (string, error) {
	dir, err := builds()
	if err != nil {
		return "", err
	}
	built.Store(true)
	path := filepath.Join(dir, name)
	out, err := exec.Command("go", slices.Concat([]string{"build", "-o", path}, flags, []string{"."})...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
}

func TestMain(m *testing.M) {
	if what := os.Getenv(slowEnv); what != "" {
		os.Exit(beSlow(what))
	}
	code := testdb.Main(m)
	if built.Load() {
		dir, _ := builds()
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// process is a running dev.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{} // closed when it has ended, after err is set
	err   error

	api, admin, database, token string
}

// dataDir is a folder that the server's user can reach, which t.TempDir is not when the tests run as root.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "outbox-dev-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// startDev runs dev on the data folder and waits until it has said where it is. It is stopped with the test.
func startDev(t *testing.T, dir string, env ...string) *process {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	p := &process{t: t, cmd: exec.Command(path, "dev", "--data", filepath.Join(dir, "data")), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "OUTBOX_ADDR=127.0.0.1:0", "OUTBOX_ADMIN_ADDR=127.0.0.1:0", "DATABASE_URL=")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	require.NoError(t, err)
	p.cmd.Stderr = p.log
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	said := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			line := lines.Text()
			for prefix, into := range map[string]*string{
				"api URL": &p.api, "admin URL": &p.admin, "database URL": &p.database, "admin token": &p.token,
			} {
				if rest, ok := strings.CutPrefix(line, prefix); ok {
					*into = strings.TrimSpace(rest)
				}
			}
			if strings.HasPrefix(line, "Ctrl-C") {
				close(said)
			}
		}
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	select {
	case <-said:
	case <-p.ended:
		t.Fatalf("dev ended: %v\n%s", p.err, p.tail())
	case <-time.After(60 * time.Second):
		t.Fatalf("dev did not start\n%s", p.tail())
	}
	return p
}

// served is a running serve.
type served struct{ *process }

// startServe runs serve in a role and waits until its log says where it listens.
func startServe(t *testing.T, role string, env []string) served {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	return startServeOf(t, path, role, env)
}

// startServeOf is startServe of another binary.
func startServeOf(t *testing.T, path, role string, env []string) served {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path, "serve", "--role", role), ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), "OUTBOX_ADDR=127.0.0.1:0", "OUTBOX_ADMIN_ADDR=127.0.0.1:0"), env...)
	var err error
	p.log, err = os.OpenFile(filepath.Join(t.TempDir(), "log"), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	p.cmd.Stderr = p.log
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	p.until("it serves", func() bool {
		for line := range strings.Lines(p.tail()) {
			var said struct{ Msg, API, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving" {
				p.api, p.admin = "http://"+said.API, "http://"+said.Admin
				return true
			}
		}
		return false
	})
	return served{p}
}

// get is the status of a GET.
func (s served) get(url string) int {
	s.t.Helper()
	a, err := call(s.t.Context(), "GET", url, nil)
	require.NoError(s.t, err)
	return a.status
}

func (p *process) tail() string {
	all, _ := os.ReadFile(p.log.Name())
	return string(all[max(0, len(all)-6000):])
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	<-p.ended
}

// stop is Ctrl-C; it must end cleanly.
func (p *process) stop() {
	select {
	case <-p.ended:
		return // killed, or stopped by the test
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("it ended with %v\n%s", p.err, p.tail())
		}
	case <-time.After(60 * time.Second):
		_ = p.cmd.Process.Kill()
		p.t.Errorf("dev did not stop\n%s", p.tail())
	}
}

func (p *process) pool() *pgxpool.Pool {
	p.t.Helper()
	pool, err := pgxpool.New(p.t.Context(), p.database)
	require.NoError(p.t, err)
	p.t.Cleanup(pool.Close)
	return pool
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	raw    string
}

func (a answer) text(path ...string) string {
	var at any = a.body
	for _, name := range path {
		fields, _ := at.(map[string]any)
		at = fields[name]
	}
	s, _ := at.(string)
	return s
}

// call makes a request; an error is one of the transport: nothing is known of the outcome.
func call(ctx context.Context, method, url string, body any, header ...string) (answer, error) {
	var reader io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return answer{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}

func (p *process) call(method, path string, body any, header ...string) answer {
	p.t.Helper()
	base := p.api
	if strings.HasPrefix(path, "/admin") {
		base, header = p.admin, append(header, "Authorization", "Bearer "+p.token)
	}
	a, err := call(p.t.Context(), method, base+path, body, header...)
	require.NoError(p.t, err, p.tail())
	return a
}

// until waits for a condition and shows the service's log when it does not come.
func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("never: %s\n%s", what, p.tail())
		}
	}
}

// mails are the distinct Message-IDs in the sink, each with how many copies it has, for mails with the subject's word.
func (p *process) mails(subject string) map[string]int {
	p.t.Helper()
	a := p.call("GET", "/dev/mail", nil)
	require.Equal(p.t, 200, a.status, a.raw)
	ids := map[string]int{}
	items, _ := a.body["items"].([]any)
	for _, item := range items {
		m, _ := item.(map[string]any)
		if s, _ := m["subject"].(string); strings.Contains(strings.ToLower(s), subject) {
			id, _ := m["message_id"].(string)
			ids[id]++
		}
	}
	return ids
}

// check is the command.
func (p *process) check() {
	p.t.Helper()
	path, err := binary()
	require.NoError(p.t, err)
	cmd := exec.CommandContext(p.t.Context(), path, "check")
	cmd.Env = append(os.Environ(), "DATABASE_URL="+p.database)
	out, err := cmd.CombinedOutput()
	require.NoError(p.t, err, string(out))
}
