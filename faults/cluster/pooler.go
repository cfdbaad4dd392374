package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/internal/postgres"
)

const logFile = "pgbouncer.log"

// ErrNoPooler says that PgBouncer is not installed.
var ErrNoPooler = errors.New("PgBouncer is not installed (Debian: the package pgbouncer)")

// Pooler is a PgBouncer in transaction mode: each transaction, and each statement outside of one, may come to another
// connection of the server, and what a session had set is gone or another's.
type Pooler struct {
	dir    string
	port   int
	login  *url.Userinfo
	family family
	warden *warden

	mu     sync.Mutex
	cmd    *exec.Cmd     // the last one that was started
	ended  chan struct{} // closed when it is reaped; nil before the first start
	closed bool
}

// StartPooler runs a pooler in dir, which is created, in front of the server that the target leads to: a URL such as
// [Server.URL] gives, with one address, which may be that of a proxy. It logs in as the target's user, for clients that
// do so too. The settings are those of pgbouncer.ini's section [pgbouncer], and go before the defaults here.
func StartPooler(ctx context.Context, dir, target string, settings map[string]string) (*Pooler, error) {
	p, err := newPooler(ctx, dir, target, settings)
	if err != nil {
		return nil, fmt.Errorf("start a pooler: %w", err)
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a pooler: %w", err), p.Close())
	}
	return p, nil
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} { // sbin is in root's PATH alone
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", ErrNoPooler
}

func newPooler(ctx context.Context, dir, target string, settings map[string]string) (*Pooler, error) {
	program, err := findPooler()
	if err != nil {
		return nil, err
	}
	to, err := pgx.ParseConfig(target)
	if err != nil {
		return nil, fmt.Errorf("the target: %w", err)
	}
	for _, other := range to.Fallbacks {
		if other.Host != to.Host || other.Port != to.Port {
			return nil, errors.New("the target has several addresses: a pooler goes to one")
		}
	}
	port, err := FreePort(ctx)
	if err != nil {
		return nil, err
	}
	// The pooler outlives the context of its start.
	cmd, err := postgres.Command(context.WithoutCancel(ctx), dir, program, "-q", "pgbouncer.ini")
	if err != nil {
		return nil, err
	}
	p := &Pooler{dir: dir, port: port, login: url.UserPassword(to.User, to.Password), cmd: cmd}
	if p.family, err = newFamily(program, cmd.Dir); err != nil {
		return nil, err
	}
	for name, content := range map[string]string{
		"pgbouncer.ini": configuration(to, port, settings),
		"users.txt":     fmt.Sprintf("%q %q\n", to.User, to.Password),
	} {
		if err := p.write(name, content); err != nil {
			return nil, err
		}
	}
	p.warden, err = startWarden(killing, p.family.program, p.family.dir)
	return p, err
}

// configuration is that of Debian's package, but for the mode, the address, and the pause of 15 s after a failed login to the server,
// which would be longer than most faults.
func configuration(to *pgx.ConnConfig, port int, settings map[string]string) string {
	all := map[string]string{
		"listen_addr":        "127.0.0.1",
		"listen_port":        strconv.Itoa(port),
		"unix_socket_dir":    "",
		"auth_type":          "scram-sha-256",
		"auth_file":          "users.txt",
		"admin_users":        to.User,
		"pool_mode":          "transaction",
		"max_client_conn":    "1000",
		"default_pool_size":  "40",
		"server_login_retry": "1",
		"logfile":            logFile,
	}
	maps.Copy(all, settings)
	var ini strings.Builder
	fmt.Fprintf(&ini, "[databases]\n* = host=%s port=%d\n\n[pgbouncer]\n", to.Host, to.Port)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&ini, "%s = %s\n", name, all[name])
	}
	return ini.String()
}

// write puts a file where the pooler's user, and nobody else, can read it.
func (p *Pooler) write(name, content string) error {
	path := filepath.Join(p.family.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return give(p.cmd, path)
}

func (p *Pooler) start(ctx context.Context) error {
	if err := p.write(logFile, ""); err != nil {
		return err
	}
	cmd, ended := p.cmd, make(chan struct{})
	if err := cmd.Start(); err != nil {
		return err
	}
	p.ended = ended
	go func() { // it ends with the pooler, which Close kills
		_ = cmd.Wait()
		close(ended)
	}()
	admin := p.URL("pgbouncer") + "&default_query_exec_mode=simple_protocol"
	err := until(ctx, func() (bool, error) {
		select {
		case <-ended:
			return true, nil
		default:
		}
		err := execute(ctx, admin, "SHOW VERSION")
		return err == nil, err
	})
	select {
	case <-ended:
		said, _ := os.ReadFile(filepath.Join(p.family.dir, logFile))
		return fmt.Errorf("PgBouncer ended: %s: %s", cmd.ProcessState, bytes.TrimSpace(said))
	default:
		return err
	}
}

// URL leads to the database through the pooler.
func (p *Pooler) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: p.login, Host: p.Addr(), Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Addr is 127.0.0.1 and the port.
func (p *Pooler) Addr() string { return address(p.port) }

// Running reports whether the pooler lives.
func (p *Pooler) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		return false
	default:
		return p.ended != nil
	}
}

// Hang stops the pooler with SIGSTOP: connections stay, and nothing goes through them.
func (p *Pooler) Hang() error { return p.family.hang() }

// Wake lets a pooler that hangs go on.
func (p *Pooler) Wake() error { return p.family.wake() }

// Restart kills the pooler, which breaks all connections, and starts it again on the same port.
func (p *Pooler) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if err := p.kill(); err != nil {
		return err
	}
	cmd := exec.Command(p.cmd.Path, p.cmd.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.cmd.Dir, p.cmd.Env, p.cmd.SysProcAttr
	p.cmd, p.ended = cmd, nil
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("restart the pooler: %w", err)
	}
	return nil
}

func (p *Pooler) kill() error {
	if err := p.family.kill(); err != nil {
		return err
	}
	if p.ended != nil {
		<-p.ended
	}
	return nil
}

// Close kills the pooler and removes its folder. Closing it again does nothing.
func (p *Pooler) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if err := p.kill(); err != nil {
		return err
	}
	p.closed = true
	p.warden.dismiss()
	return postgres.Remove(p.dir)
}

// give hands a file to the user that the command runs as.
func give(cmd *exec.Cmd, path string) error {
	c := cmd.SysProcAttr.Credential
	if c == nil {
		return nil
	}
	if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
		return fmt.Errorf("give a file to the user it is for: %w", err)
	}
	return nil
}
