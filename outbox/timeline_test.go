package outbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// said appends an event of a correlation id and a producer, and returns its id.
func (r *rig) said(correlationID, source, key string, n int) (id uuid.UUID) {
	r.t.Helper()
	ctx := outbox.WithSource(outbox.WithCorrelationID(r.t.Context(), correlationID), source)
	require.NoError(r.t, pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) (err error) {
		id, err = outbox.Append(ctx, tx, outbox.Event{Type: "note.taken", Key: key, Data: note{n}})
		return err
	}))
	return id
}

func (r *rig) trace(correlationID string) *outbox.Timeline {
	r.t.Helper()
	timeline, err := r.op.Trace(r.t.Context(), correlationID)
	require.NoError(r.t, err)
	return timeline
}

// delivery is what a timeline says of the n-th event at a consumer.
func delivery(t *testing.T, timeline *outbox.Timeline, n int, consumer string) outbox.DeliveryStatus {
	t.Helper()
	for _, d := range timeline.Events[n].Deliveries {
		if d.Consumer == consumer {
			return d
		}
	}
	t.Fatalf("%s has no delivery of event %d", consumer, n)
	return outbox.DeliveryStatus{}
}

func outcomes(d outbox.DeliveryStatus) (all []string) {
	for _, a := range d.Attempts {
		all = append(all, a.Outcome)
	}
	return all
}

// A timeline tells of a failure from its first attempt to the replay, and of what waited for it; also of what is still to come.
func TestTimelineOfAFailureAndWhatWaitedForIt(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger", outbox.MaxAttempts(2))
	r.exec(`insert into broken values (1)`)
	first := r.said("broken", "POST /notes", "k", 1)

	timeline := r.trace("broken")
	require.Equal(t, "POST /notes", timeline.Request.Source)
	require.Equal(t, timeline.Events[0].OccurredAt, timeline.Request.At)
	require.Equal(t, "outbox", timeline.Events[0].State)
	require.Len(t, timeline.Open, 1)
	require.Contains(t, timeline.Open[0].Explanation, "no relay has moved it")

	r.relay()
	require.Equal(t, "the consumer has not come to it yet", r.trace("broken").Open[0].Explanation)
	require.NoError(t, r.op.Pause(t.Context(), "ledger", anna))
	require.Contains(t, r.trace("broken").Open[0].Explanation, "the consumer is paused since ")
	require.NoError(t, r.op.Resume(t.Context(), "ledger", anna))

	r.drainAll()
	d := delivery(t, r.trace("broken"), 0, "ledger")
	require.Equal(t, "in_flight", d.State)
	require.Equal(t, 2, d.MaxAttempts)
	require.NotNil(t, d.NextAttemptAt)
	require.Regexp(t, `^attempt 2 of 2 is due at .*; the last error: 1 is broken$`, d.Explanation)

	r.said("patient", "POST /notes", "k", 2)
	r.settle()
	d = delivery(t, r.trace("broken"), 0, "ledger")
	require.Equal(t, "dead", d.State)
	require.Regexp(t, `^gave up after 2 attempts; its key waits until dead letter \d+ is settled; the last error: 1 is broken$`, d.Explanation)
	behind := delivery(t, r.trace("patient"), 0, "ledger")
	require.Equal(t, "waiting", behind.State)
	require.Equal(t, first, *behind.Behind)
	require.Regexp(t, "^waits behind event "+first.String()+` of its key, which is dead letter \d+$`, behind.Explanation)

	r.exec(`delete from broken`)
	_, err := r.op.Replay(t.Context(), *d.LetterID, nil, anna)
	require.NoError(t, err)
	r.settle()
	timeline = r.trace("broken")
	d = delivery(t, timeline, 0, "ledger")
	require.Equal(t, []string{"failed", "failed", "dead", "replayed", "applied"}, outcomes(d))
	require.Equal(t, "done; replayed by anna: a test; 2 attempts failed before", d.Explanation)
	require.Empty(t, timeline.Open)
	require.False(t, timeline.Until.Before(*d.ProcessedAt))

	behind = delivery(t, r.trace("patient"), 0, "ledger")
	require.Equal(t, []string{"waited"}, outcomes(behind), "the wait is over, and not forgotten")
	require.Equal(t, first, *behind.Attempts[0].Behind)
	require.True(t, behind.Attempts[0].Since.Before(behind.Attempts[0].At))
	require.Regexp(t, `^done; waited .* behind another event of its key$`, behind.Explanation)
}

// What handlers append follows from what they were given, and names the consumer as its producer.
func TestTimelineOfACascade(t *testing.T) {
	t.Parallel()
	reg := outbox.NewRegistry()
	outbox.Handle(reg, "copier", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "copy.made", Key: e.Key, Data: e.Data})
		return err
	}, outbox.On("note.taken"))
	outbox.Handle(reg, "binder", func(ctx context.Context, tx pgx.Tx, e outbox.Received[note]) error {
		_, err := outbox.Append(ctx, tx, outbox.Event{Type: "book.bound", Key: e.Key, Data: e.Data, Source: "a bindery"})
		return err
	}, outbox.On("copy.made"))
	outbox.HandleExternal(reg, "post", func(context.Context, outbox.Received[note]) (func(context.Context, pgx.Tx) error, error) {
		return nil, nil
	}, outbox.On("book.bound"))
	r := newRig(t, reg)
	r.said("cascade", "POST /notes", "k", 1)
	r.relay()
	r.drainAll()
	r.relay()
	r.drainAll()
	r.relay()
	r.drainAll()
	d := delivery(t, r.trace("cascade"), 2, "post")
	require.Regexp(t, `^its first attempt is due at `, d.Explanation)
	require.Equal(t, "external", d.Kind)
	r.settle()

	timeline := r.trace("cascade")
	var got [][3]any
	for _, e := range timeline.Events {
		got = append(got, [3]any{e.Type, e.Source, e.Depth})
		require.Nil(t, e.Data)
	}
	require.Equal(t, [][3]any{{"note.taken", "POST /notes", 0}, {"copy.made", "copier", 1}, {"book.bound", "a bindery", 2}}, got)
	require.Equal(t, "done", delivery(t, timeline, 2, "post").Explanation)
	require.Empty(t, timeline.Open)

	_, err := r.op.Trace(t.Context(), "nobody")
	require.ErrorIs(t, err, outbox.ErrNotFound)
}

// A second delivery is told of, and so is an event that was scheduled, and one that the log refused.
func TestTimelineOfTheUnusual(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger")
	id := r.said("twice", "", "k", 1)
	r.settle()
	r.exec(`update cursors set pos = 0`) // as if the cursor had not been moved
	r.settle()
	d := delivery(t, r.trace("twice"), 0, "ledger")
	require.Equal(t, []string{"duplicate"}, outcomes(d))
	require.Equal(t, "done; a second delivery was suppressed", d.Explanation)
	r.applied("ledger", "k", 1)

	require.NoError(t, pgx.BeginFunc(t.Context(), r.pool, func(tx pgx.Tx) error {
		_, err := outbox.Append(t.Context(), tx, outbox.Event{
			Type: "note.taken", Key: "later", Data: note{2}, CorrelationID: "later", NotBefore: time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC),
		})
		return err
	}))
	require.Equal(t, "is not due before 2100-01-02 03:04:05 UTC", r.trace("later").Open[0].Explanation)

	r.exec(`insert into quarantine (seq, id, type, key, data, correlation_id, source, schema_version, occurred_at, error)
		values (99, gen_random_uuid(), 'note.taken', 'odd', '{"n": 1}', 'refused', 'psql', 1, now(), 'no partition')`)
	refused := r.trace("refused")
	require.Equal(t, "quarantined", refused.Events[0].State)
	require.Equal(t, "the log refused it, or an earlier event of its key: no partition", refused.Open[0].Explanation)

	event, err := r.op.Event(t.Context(), id)
	require.NoError(t, err)
	require.JSONEq(t, `{"n": 1}`, string(event.Data))
	require.Len(t, event.Deliveries, 1)
}

// What is looked for by keys or ids is found, the newest first and each once, over all pages.
func TestSearch(t *testing.T) {
	t.Parallel()
	r := failing(t, "ledger")
	var ids []uuid.UUID
	for _, c := range []struct{ correlation, key string }{
		{"a", "mine"}, {"b", "mine"}, {"c", "yours"}, {"a", "mine"}, {"d", "mine"}, {"e", "yours"},
	} {
		ids = append(ids, r.said(c.correlation, "", c.key, 1))
		r.relay()
	}
	r.said("ahead", "", "mine", 1)
	find := func(s outbox.Search, limit int) (found []string) {
		t.Helper()
		for before, pages := int64(0), 0; pages == 0 || before > 0; pages++ {
			require.Less(t, pages, 10)
			page, err := r.op.Search(t.Context(), s, before, limit)
			require.NoError(t, err)
			for _, timeline := range page.Timelines {
				found = append(found, timeline.CorrelationID)
			}
			before = page.Next
		}
		return found
	}
	for _, limit := range []int{1, 2, 50} {
		require.Equal(t, []string{"ahead", "d", "a", "b"}, find(outbox.Search{Keys: []string{"mine"}}, limit), limit)
		require.Equal(t, []string{"ahead", "e", "d", "a", "c", "b"}, find(outbox.Search{Keys: []string{"mine", "yours"}}, limit), limit)
		require.Equal(t, []string{"e", "a"}, find(outbox.Search{EventIDs: []uuid.UUID{ids[0], ids[5]}}, limit), limit)
		require.Equal(t, []string{"b", "ahead", "d", "a"}, find(outbox.Search{CorrelationID: "b", Keys: []string{"mine"}}, limit), limit)
		require.Equal(t, []string{"c"}, find(outbox.Search{CorrelationID: "c", Keys: []string{"c"}}, limit), limit)
	}
	require.Empty(t, find(outbox.Search{CorrelationID: "nobody", Keys: []string{"nobody"}, EventIDs: []uuid.UUID{uuid.New()}}, 10))

	// Far up the log, what is far down is a page of its own away.
	r.exec(`update relay_state set head = head + 2500000`)
	page, err := r.op.Search(t.Context(), outbox.Search{Keys: []string{"yours"}}, 0, 10)
	require.NoError(t, err)
	require.Empty(t, page.Timelines)
	require.Positive(t, page.Next)
	require.Equal(t, []string{"e", "c"}, find(outbox.Search{Keys: []string{"yours"}}, 10))
	require.Equal(t, []string{"ahead", "a"}, find(outbox.Search{Keys: []string{"mine"}, EventIDs: ids[:1]}, 1), "an id is found wherever it is")
}
