package mailsink

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const envChild = "MAILSINK_TEST_DIR"

// TestMain makes the test binary a sink of its own when TestSurvivesKill starts it again.
func TestMain(m *testing.M) {
	dir := os.Getenv(envChild)
	if dir == "" {
		os.Exit(m.Run())
	}
	sink, err := Start(context.Background(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(sink.URL())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until it is killed, or its parent is gone
}

// Whatever was acknowledged is there after a kill -9 at any moment, under load.
func TestSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	acknowledged := map[string]bool{}

	for round := range 3 {
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), envChild+"="+dir)
		stdin, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close() })
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		url, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		url = strings.TrimSpace(url)

		var clients sync.WaitGroup
		enough := make(chan struct{})
		var once sync.Once
		for c := range 4 {
			clients.Go(func() {
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d.%d.%d@x", round, c, i)
					if send(url, id, "text\r\n") != nil {
						return // killed
					}
					mu.Lock()
					acknowledged[id] = true
					if len(acknowledged) >= 40*(round+1) {
						once.Do(func() { close(enough) })
					}
					mu.Unlock()
				}
			})
		}
		gone := make(chan struct{})
		go func() { clients.Wait(); close(gone) }()
		select {
		case <-enough:
		case <-gone:
			t.Fatal("the sink stopped taking mails by itself")
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		<-gone
	}

	kept := map[string]bool{}
	for _, m := range start(t, dir).Messages() {
		kept[m.MessageID] = true
		if m.Text != "text\n" {
			t.Errorf("%s is not whole: %+v", m.MessageID, m)
		}
	}
	for id := range acknowledged {
		if !kept[id] {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
}
