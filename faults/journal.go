package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/uuid"
)

// journal is what the clients know: every write that was acknowledged to them, on disk before it counts as acknowledged.
// The proof goes by it, and by nothing that the service says of itself.
type journal struct {
	file *os.File

	mu      sync.Mutex
	buf     *bufio.Writer
	err     error
	waiting chan struct{} // closed when what is in buf now is on disk
	count   int
	byKind  map[string]int

	flush chan struct{}
	done  chan struct{}
}

// entry is one acknowledged event.
type entry struct {
	kind  string // the type of the event
	event uuid.UUID
	// correlation is the id that the client sent, or was answered.
	correlation string
}

func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &journal{
		file: file, buf: bufio.NewWriterSize(file, 1<<16), waiting: make(chan struct{}), byKind: map[string]int{},
		flush: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go j.run()
	return j, nil
}

// acknowledge returns when the entries are on disk. Those of several clients share an fsync.
func (j *journal) acknowledge(entries ...entry) error {
	j.mu.Lock()
	for _, e := range entries {
		_, _ = fmt.Fprintf(j.buf, "%s,%s,%s\n", e.event, e.kind, e.correlation) // the writer keeps its first error for Flush
	}
	wait := j.waiting
	select {
	case j.flush <- struct{}{}:
	default:
	}
	j.mu.Unlock()
	<-wait
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.count += len(entries)
		for _, e := range entries {
			j.byKind[e.kind]++
		}
	}
	return j.err
}

func (j *journal) run() {
	defer close(j.done)
	for range j.flush {
		j.mu.Lock()
		wrote := j.waiting
		j.waiting = make(chan struct{})
		err := j.buf.Flush()
		j.mu.Unlock()
		if err == nil {
			err = j.file.Sync()
		}
		if err != nil {
			j.mu.Lock()
			j.err = errors.Join(j.err, err)
			j.mu.Unlock()
		}
		close(wrote)
	}
}

func (j *journal) acknowledged() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

// close ends the journal; nobody may acknowledge any more.
func (j *journal) close() error {
	close(j.flush)
	<-j.done
	return errors.Join(j.err, j.file.Close())
}
