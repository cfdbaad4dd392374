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

// firstPartition of the log is small, so that a run sees it go soon.
const firstPartition = 500

// partitionSize is that of the others. In the long form there are to be few: each costs every new connection. In the short form they are
// smaller than what the relay wants ahead of it, so that it has to make them again when they are dropped.
func (s *stage) partitionSize() int {
	if s.long {
		return 20_000
	}
	return 3_000
}

// prepareLog makes partitions small, and has the log refuse a key.
func (s *stage) prepareLog(ctx context.Context) error {
	_, err := s.direct.Exec(ctx, fmt.Sprintf(`alter table events add constraint faults_refuses check (key <> 'refused');
		drop table events_p0; update relay_state set partition_size = %d, partitioned_to = 0;
		select outbox_make_event_partitions(1);
		update relay_state set partition_size = %d`, firstPartition, s.partitionSize()))
	return err
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
			reset lock_timeout`, firstPartition))
		return err == nil
	})
}

// age makes the oldest partition of the log old enough for retention to drop it. What it holds is kept for the proof.
func (s *stage) age(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, fmt.Sprintf(`with young as (select min(pos) as pos from events where relayed_at > clock_timestamp() - interval '1 hour'),
		old as (select case when pos < %[1]d then %[1]d else %[1]d + ((pos - %[1]d) / %[2]d + 1) * %[2]d end as high from young),
		kept as (
			insert into faults.retired (pos, id, type, key, data, correlation_id, causation_id)
			select pos, id, type, key, data, correlation_id, causation_id from events, old
			where pos < high and relayed_at > clock_timestamp() - interval '1 hour')
		update events set relayed_at = relayed_at - interval '60 days' from old where pos < high and relayed_at > clock_timestamp() - interval '1 hour'`,
		firstPartition, s.partitionSize()))
}
