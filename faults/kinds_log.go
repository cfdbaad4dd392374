package main

import (
	"context"
	"fmt"
	"time"
)

// quarantine appends an event that the log refuses, so that the relay has to set it aside. Nobody subscribes to it.
func (s *stage) quarantine(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, "select outbox_append('fault.later', 'refused', '{}')")
}

// endQuarantine forgets what the log has refused.
func (s *stage) endQuarantine(ctx context.Context) error {
	return s.exec(ctx, "delete from outbox where key = 'refused'; delete from quarantine where key = 'refused'")
}

const (
	// The first partitions of the log are small, so that a run sees some of them go.
	firstPartitionSize = 500
	firstPartitionsEnd = 4 * firstPartitionSize
	// partitionSize is that of the others. There are to be few, as in production: each costs every new connection the planning of what reads
	// the log. It is less than what the relay wants ahead of it, so that it makes them again when they are dropped.
	partitionSize = 50_000
)

// preparedLog makes partitions small, and has the log refuse a key.
func preparedLog() string {
	return fmt.Sprintf(`alter table events add constraint faults_refuses check (key <> 'refused');
		drop table events_p0; update relay_state set partition_size = %d, partitioned_to = 0;
		select outbox_make_event_partitions(%d);
		update relay_state set partition_size = %d`, firstPartitionSize, firstPartitionsEnd, partitionSize)
}

// dropAhead drops the partitions that were made for events to come, so that the relay soon has to make them again. It needs a lock that
// nobody else may have, and keeps nobody waiting for long.
func (s *stage) dropAhead(ctx context.Context) {
	_ = until(ctx, 3*time.Second, "a lock on the log", func() bool {
		_, err := s.direct.Exec(ctx, fmt.Sprintf(`set lock_timeout = '50ms';
			do $$
			declare
				s relay_state;
			begin
				lock table events in access exclusive mode;
				select * into s from relay_state for update;
				while s.partitioned_to > %d and s.partitioned_to - s.partition_size > s.head loop
					s.partitioned_to := s.partitioned_to - s.partition_size;
					execute format('drop table events_p%%s', s.partitioned_to);
					update relay_state set partitioned_to = s.partitioned_to;
				end loop;
			end $$;
			reset lock_timeout`, firstPartitionsEnd))
		return err == nil
	})
}

// age makes the oldest partition of the log, once it is full, old enough for retention to drop it. What it holds is kept for the proof.
func (s *stage) age(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, fmt.Sprintf(`with young as (select min(pos) as pos from events where relayed_at > clock_timestamp() - interval '1 hour'),
		ends as (select case when pos < %[1]d then (pos / %[2]d + 1) * %[2]d else %[1]d + ((pos - %[1]d) / %[3]d + 1) * %[3]d end as high from young),
		old as (select high from ends, relay_state where high <= head),
		kept as (
			insert into faults.retired (pos, id, type, key, data, correlation_id, causation_id)
			select pos, id, type, key, data, correlation_id, causation_id from events, old
			where pos < high and relayed_at > clock_timestamp() - interval '1 hour')
		update events set relayed_at = relayed_at - interval '60 days' from old where pos < high and relayed_at > clock_timestamp() - interval '1 hour'`,
		firstPartitionsEnd, firstPartitionSize, partitionSize))
}
