package outside

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// journal is a file of lines that are on the disk before anybody is told so. What comes together is synced together.
type journal struct {
	file    *os.File
	entries chan *entry
	quit    chan struct{} // closed by close
	ended   chan struct{} // closed when the writer has ended
	once    sync.Once
}

type entry struct {
	line  []byte
	apply func()
	saved chan error // takes one
}

var errJournalClosed = errors.New("outside: the journal is closed")

// maxGroup bounds what is synced at once.
const maxGroup = 256

// openJournal makes the file, which must not be there: a file of two runs would tell of neither.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("outside: make the journal: %w", err)
	}
	j := &journal{file: file, entries: make(chan *entry), quit: make(chan struct{}), ended: make(chan struct{})}
	go j.write()
	return j, nil
}

// append returns when the line is on the disk. Then apply was called; the calls are one at a time, in the order of the lines.
func (j *journal) append(line []byte, apply func()) error {
	e := &entry{line, apply, make(chan error, 1)}
	select {
	case j.entries <- e:
		return <-e.saved
	case <-j.quit:
		return errJournalClosed
	}
}

// close waits for what was begun.
func (j *journal) close() error {
	var err error
	j.once.Do(func() {
		close(j.quit)
		<-j.ended
		err = j.file.Close()
	})
	return err
}

func (j *journal) write() {
	defer close(j.ended)
	var broken error // after a failed write nobody knows what the file holds
	for {
		group := j.next()
		if group == nil {
			return
		}
		if broken == nil {
			broken = j.save(group)
		}
		for _, e := range group {
			if broken == nil {
				e.apply()
			}
			e.saved <- broken
		}
	}
}

// next waits for an entry, and takes the others that wait by then; nil when the journal is closed.
func (j *journal) next() (group []*entry) {
	select {
	case e := <-j.entries:
		group = append(group, e)
	case <-j.quit:
		return nil
	}
	for len(group) < maxGroup {
		select {
		case e := <-j.entries:
			group = append(group, e)
		default:
			return group
		}
	}
	return group
}

func (j *journal) save(group []*entry) error {
	var lines []byte
	for _, e := range group {
		lines = append(append(lines, e.line...), '\n')
	}
	if _, err := j.file.Write(lines); err != nil {
		return fmt.Errorf("outside: write the journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("outside: sync the journal: %w", err)
	}
	return nil
}
