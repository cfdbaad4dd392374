package outside

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Entry is a note that the ledger was told.
type Entry struct {
	IdempotencyKey string `json:"idempotency_key"`
	Note
	// Repeat says that the key was there before: a receiver that honours keys does nothing for it.
	Repeat bool `json:"-"`
	// Changed says that the key was there before for another note. It was answered with 422.
	Changed bool `json:"-"`
}

// Note is the body of a request.
type Note struct {
	EventID string `json:"event_id"`
	Key     string `json:"key"`
	N       int64  `json:"n"`
}

// LedgerConfig says how a ledger is set up.
type LedgerConfig struct {
	// File takes a line for each entry. It must not be there yet.
	File string
	// Seed is where the coins of the faults come from.
	Seed uint64
}

// Ledger takes notes by POST, with an Idempotency-Key, and answers 200 when they are on the disk.
type Ledger struct {
	*Server
	journal *journal

	mu      sync.Mutex
	entries []Entry
	first   map[string]Note // by idempotency key
}

// StartLedger runs a ledger until Close.
func StartLedger(c LedgerConfig) (*Ledger, error) {
	j, err := openJournal(c.File)
	if err != nil {
		return nil, err
	}
	l := &Ledger{journal: j, first: map[string]Note{}}
	if l.Server, err = start(http.HandlerFunc(l.take), c.Seed); err != nil {
		return nil, errors.Join(err, j.close())
	}
	return l, nil
}

// Entries returns all that was told, in the order of the file.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Close ends the server and closes the file. What it was told can still be asked for.
func (l *Ledger) Close() error { return errors.Join(l.stop(), l.journal.close()) }

func (l *Ledger) take(w http.ResponseWriter, r *http.Request) {
	e := Entry{IdempotencyKey: r.Header.Get("Idempotency-Key")}
	switch err := json.NewDecoder(r.Body).Decode(&e.Note); {
	case r.URL.Path != "/":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		http.Error(w, "POST is the method", http.StatusMethodNotAllowed)
		return
	case err != nil || e.IdempotencyKey == "" || e.EventID == "":
		http.Error(w, "a note has an event id, a key, a number and an Idempotency-Key", http.StatusBadRequest)
		return
	}
	line, err := json.Marshal(struct {
		At time.Time `json:"at"`
		Entry
	}{time.Now(), e})
	if err == nil {
		err = l.journal.append(line, func() { l.enter(&e) })
	}
	switch {
	case err != nil:
		http.Error(w, "the note cannot be kept", http.StatusInternalServerError)
	case e.Changed:
		http.Error(w, "the key was used for another note", http.StatusUnprocessableEntity)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}
}

func (l *Ledger) enter(e *Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	note, seen := l.first[e.IdempotencyKey]
	if !seen {
		l.first[e.IdempotencyKey] = e.Note
	}
	e.Repeat, e.Changed = seen, seen && note != e.Note
	l.entries = append(l.entries, *e)
}
