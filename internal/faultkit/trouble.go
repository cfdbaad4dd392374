package faultkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// Deed is what Troubled does with an event, in the first Payload.Times runs of it, before it applies it. Runs are counted in each
// process for itself; those that end with the process, in a file.
type Deed string

// The deeds.
const (
	// Apply does nothing before.
	Apply Deed = "apply"
	// Fail returns an error, and FailForGood one that no attempt can mend.
	Fail        Deed = "fail"
	FailForGood Deed = "permanent"
	// Panic panics, with a message that PostgreSQL cannot store.
	Panic Deed = "panic"
	// Crash kills the process.
	Crash Deed = "crash"
	// Hang never returns, whatever becomes of its context. The goroutine is lost.
	Hang Deed = "hang"
	// Slow waits Payload.MS milliseconds, or for the end of its context, which is then its error.
	Slow Deed = "slow"
	// Serialization and Deadlock fail in the database as if two transactions had met, Division for what is in the event.
	Serialization Deed = "serialization"
	Deadlock      Deed = "deadlock"
	Division      Deed = "division"
	// Switched fails for good as long as there is a row poison in faults.switches, however often it has run.
	Switched Deed = "switched"
)

func registerTrouble(reg *outbox.Registry, deps Deps) {
	t := &trouble{dir: deps.Dir, runs: map[uuid.UUID]int{}}
	outbox.Handle(reg, Troubled, t.handle, outbox.On(Trouble), outbox.MaxAttempts(5),
		outbox.Backoff(200*time.Millisecond, time.Second), outbox.Timeout(2*time.Second))
}

type trouble struct {
	dir string

	mu     sync.Mutex
	runs   map[uuid.UUID]int
	on     bool      // the switch, as it was last
	looked time.Time // when that was
}

func (t *trouble) handle(ctx context.Context, tx pgx.Tx, e outbox.Received[Payload]) error {
	batch := outbox.Batch(ctx)
	if err := t.do(ctx, tx, batch, e); err != nil {
		return err
	}
	note(batch, e)
	return nil
}

// troubled reports whether this run of the event is one of the first that are to go wrong.
func (t *trouble) troubled(e outbox.Received[Payload]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs[e.ID]++
	return t.runs[e.ID] <= e.Data.Times
}

func (t *trouble) do(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, e outbox.Received[Payload]) error {
	if e.Data.Do == Crash {
		return t.crash(e)
	}
	if e.Data.Do == Switched {
		return t.switched(ctx, tx)
	}
	if !t.troubled(e) {
		return nil
	}
	switch e.Data.Do {
	case Apply, "":
		return nil
	case Fail:
		return errors.New("trouble: it fails")
	case FailForGood:
		return outbox.Permanent(errors.New("trouble: it fails for good"))
	case Panic:
		panic("trouble: a NUL \x00 and what is no UTF-8 \xff\xfe")
	case Hang:
		select {}
	case Slow:
		timer := time.NewTimer(time.Duration(e.Data.MS) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		}
	case Serialization:
		_, err := tx.Exec(ctx, `do $$ begin raise 'trouble: as if not serialisable' using errcode = '40001'; end $$`)
		return err
	case Deadlock:
		_, err := tx.Exec(ctx, `do $$ begin raise 'trouble: as if deadlocked' using errcode = '40P01'; end $$`)
		return err
	case Division:
		// It fails where it is sent, with what other events have queued.
		batch.Queue(`select 1 / $1::integer`, 0)
		return nil
	}
	return fmt.Errorf("trouble: there is no deed %q", e.Data.Do)
}

// switched looks the switch up, and goes by that for a while: a million events ask.
func (t *trouble) switched(ctx context.Context, tx pgx.Tx) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.looked) > time.Second {
		if err := tx.QueryRow(ctx, `select exists (select from faults.switches where name = 'poison')`).Scan(&t.on); err != nil {
			return err
		}
		t.looked = time.Now()
	}
	if t.on {
		return outbox.Permanent(errors.New("trouble: the switch is on"))
	}
	return nil
}

// crash kills the process, in as many runs as the event says. The file that counts them is on the disk before.
func (t *trouble) crash(e outbox.Received[Payload]) error {
	if t.dir == "" {
		return errors.New(EnvDir + " is empty")
	}
	file, err := os.OpenFile(filepath.Join(t.dir, e.ID.String()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("count the crashes: %w", err)
	}
	defer func() { _ = file.Close() }() // what was written is synced
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("count the crashes: %w", err)
	}
	if info.Size() >= int64(e.Data.Times) {
		return nil
	}
	if _, err := file.Write([]byte{'x'}); err != nil {
		return fmt.Errorf("count the crashes: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("count the crashes: %w", err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return fmt.Errorf("find this process: %w", err)
	}
	if err := self.Kill(); err != nil {
		return fmt.Errorf("kill this process: %w", err)
	}
	select {} // it takes effect in a moment
}
