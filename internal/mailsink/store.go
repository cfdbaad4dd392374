package mailsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// On disk a message is <received, in ns>-<random>.eml, so that names sort by time; the envelope is in header lines
// above those of the message, as a mail server writes it when it delivers.
const (
	suffix     = ".eml"
	tempPrefix = ".new-"
	modeFile   = "mode"
)

type envelope struct {
	receivedAt time.Time
	from       string
	to         []string
}

// keep writes the message and then lists it. After a nil it survives a crash of the process and of the machine.
func (s *Sink) keep(e envelope, raw []byte) error {
	file, err := os.CreateTemp(s.dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	random := strings.TrimPrefix(filepath.Base(file.Name()), tempPrefix)
	name := fmt.Sprintf("%020d-%s%s", e.receivedAt.UnixNano(), random, suffix)

	var head bytes.Buffer
	fmt.Fprintf(&head, "Return-Path: <%s>\r\n", e.from)
	for _, to := range e.to {
		fmt.Fprintf(&head, "Delivered-To: %s\r\n", to)
	}
	content := append(head.Bytes(), raw...)
	if err := s.commit(file, name, content); err != nil {
		return err
	}
	m := parse(strings.TrimSuffix(name, suffix), e.receivedAt, content)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	return nil
}

func (s *Sink) storeMode(code int) error {
	file, err := os.CreateTemp(s.dir, tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("mailsink: keep the mode: %w", err)
	}
	if err := s.commit(file, modeFile, []byte(strconv.Itoa(code)+"\n")); err != nil {
		return fmt.Errorf("mailsink: keep the mode: %w", err)
	}
	return nil
}

// commit makes the open temporary file the named one, whole or not at all.
func (s *Sink) commit(file *os.File, name string, content []byte) error {
	_, err := file.Write(content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	// The new name is safe with the directory that holds it.
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// load reads the mode and the messages back, and removes what a crash left half written: nobody was told that those
// were accepted.
func (s *Sink) load(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		path := filepath.Join(s.dir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), tempPrefix):
			err = os.Remove(path)
		case strings.HasSuffix(entry.Name(), suffix):
			err = s.loadMessage(path, strings.TrimSuffix(entry.Name(), suffix))
		}
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(s.messages, func(a, b Message) int { return a.ReceivedAt.Compare(b.ReceivedAt) })

	mode, err := os.ReadFile(filepath.Join(s.dir, modeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.mode, err = strconv.Atoi(strings.TrimSpace(string(mode))); err != nil {
		return fmt.Errorf("the mode is no number: %w", err)
	}
	return nil
}

func (s *Sink) loadMessage(path, id string) error {
	nanos, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil {
		return nil // no file of ours
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.messages = append(s.messages, parse(id, time.Unix(0, n), content))
	return nil
}
