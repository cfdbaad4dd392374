// Package docs_test holds the documents true.
package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/testdb"
)

// block is a fenced block of a document, with the file of the examples that it is said to be, if it is one.
type block struct{ language, text, file string }

var (
	fence = regexp.MustCompile("(?s)```(\\w+)\n(.*?)```\n")
	named = regexp.MustCompile("^\\[`[^`]+`\\]\\(\\.\\./examples/([^)]+\\.go)\\)|In \\[`[^`]+`\\]\\(\\.\\./examples/([^)]+\\.go)\\)")
)

func blocks(t *testing.T, document string) []block {
	t.Helper()
	text, err := os.ReadFile(document)
	require.NoError(t, err)
	var all []block
	end := 0
	for _, at := range fence.FindAllSubmatchIndex(text, -1) {
		b := block{language: string(text[at[2]:at[3]]), text: string(text[at[4]:at[5]])}
		paragraphs := strings.Split(strings.TrimSpace(string(text[end:at[0]])), "\n\n")
		if m := named.FindStringSubmatch(paragraphs[len(paragraphs)-1]); m != nil {
			b.file = m[1] + m[2]
		}
		all, end = append(all, b), at[1]
	}
	return all
}

// TestTheGuidesFilesAreTheExamples: each block of Go is a file of the examples, and each of their files is there.
func TestTheGuidesFilesAreTheExamples(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	for _, b := range blocks(t, "guide.md") {
		if b.language != "go" {
			continue
		}
		require.NotEmpty(t, b.file, "a block does not say which file of the examples it is:\n%s", b.text)
		text, err := os.ReadFile(filepath.Join("..", "examples", b.file))
		require.NoError(t, err)
		require.Equal(t, string(text), b.text, b.file)
		shown[b.file] = true
	}
	files, err := filepath.Glob("../examples/*/*.go")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		name, err := filepath.Rel("../examples", f)
		require.NoError(t, err)
		require.True(t, shown[name], "%s is not in the guide", name)
	}
}

// TestTheGuideWorks does in an empty folder what the guide says, step by step. Only what asks for modules is done without asking:
// the folder has the examples' go.mod.
func TestTheGuideWorks(t *testing.T) {
	t.Parallel()
	g := &guide{t: t, dir: t.TempDir(), address: freeAddress(t), database: testdb.Empty(t)}
	g.modules()
	all := blocks(t, "guide.md")
	for i, b := range all {
		command := strings.TrimSpace(b.text)
		switch {
		case b.language == "go":
			require.NoError(t, os.WriteFile(filepath.Join(g.dir, filepath.Base(b.file)), []byte(b.text), 0o600))
		case b.language == "text": // belongs to the command before
		case b.language != "sh":
			t.Fatalf("nobody tests a block in %q", b.language)
		case strings.HasPrefix(command, "go mod "):
		case command == "go run .":
			g.start()
		case i+1 < len(all) && all[i+1].language == "text":
			g.says(command, all[i+1].text)
		default:
			out, err := g.run(command)
			require.NoError(t, err, "%s\n%s", command, out)
		}
	}
	g.stop()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

type guide struct {
	t                      *testing.T
	dir, address, database string

	program *exec.Cmd
	log     *bytes.Buffer
}

// modules lays the examples' go.mod into the folder, which leads to this checkout.
func (g *guide) modules() {
	root, err := filepath.Abs("..")
	require.NoError(g.t, err)
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", "examples", name))
		require.NoError(g.t, err)
		text = bytes.ReplaceAll(text, []byte("=> ../"), []byte("=> "+root))
		require.NoError(g.t, os.WriteFile(filepath.Join(g.dir, name), text, 0o600))
	}
}

func (g *guide) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "DATABASE_URL="+g.database, "ADDR="+g.address, "USER=anna")
	return cmd
}

// run runs what the guide says, line by line.
func (g *guide) run(command string) (string, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), 3*time.Minute)
	defer cancel()
	var said strings.Builder
	for line := range strings.Lines(command) {
		var out []byte
		var err error
		if m := curl.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			out, err = g.curl(ctx, m[1], m[2], m[3])
		} else {
			out, err = g.command(ctx, "sh", "-ec", line).CombinedOutput()
		}
		said.Write(out)
		if err != nil {
			return said.String(), fmt.Errorf("%s: %w", line, err)
		}
	}
	return said.String(), nil
}

var curl = regexp.MustCompile(`^curl -s (?:-X (\w+) )?http://127\.0\.0\.1:8090(\S+)(?: -d '(.*)')?$`)

// curl does what curl would do, which a machine that runs the tests need not have.
func (g *guide) curl(ctx context.Context, method, path, body string) ([]byte, error) {
	if method == "" && body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+g.address+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// says requires the command to say that before long: it only reads.
func (g *guide) says(command, want string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		out, err := g.run(command)
		if err == nil && out == want {
			return
		}
		if time.Now().After(deadline) {
			require.NoError(g.t, err)
			require.Equal(g.t, want, out, command)
		}
	}
}

// start builds and starts the program in place of the one that runs, and waits until it answers.
func (g *guide) start() {
	g.stop()
	out, err := g.run("go build -o program .")
	require.NoError(g.t, err, out)
	g.log = &bytes.Buffer{}
	g.program = g.command(context.WithoutCancel(g.t.Context()), filepath.Join(g.dir, "program"))
	g.program.Stdout, g.program.Stderr = g.log, g.log
	require.NoError(g.t, g.program.Start())
	program := g.program
	g.t.Cleanup(func() { _ = program.Process.Kill() })
	require.Eventually(g.t, func() bool {
		conn, err := net.Dial("tcp", g.address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, 30*time.Second, 10*time.Millisecond)
}

// stop is a Ctrl-C, after which the program ends without an error.
func (g *guide) stop() {
	if g.program == nil {
		return
	}
	require.NoError(g.t, g.program.Process.Signal(syscall.SIGINT))
	ended := make(chan error, 1)
	go func() { ended <- g.program.Wait() }()
	select {
	case err := <-ended:
		require.NoError(g.t, err, fmt.Sprint(g.log))
	case <-time.After(time.Minute):
		g.t.Fatal("the program does not end")
	}
	g.program = nil
}

// TestLinksLeadSomewhere: those to files of the repository.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("*.md")
	require.NoError(t, err)
	require.NotEmpty(t, documents)
	for _, d := range documents {
		text, err := os.ReadFile(d)
		require.NoError(t, err)
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(text), -1) {
			_, err := os.Stat(link[1])
			require.NoError(t, err, d)
		}
	}
}
