package main

import (
	"context"
	"fmt"
)

// quarantine has the log refuse an event, so that the relay has to set it aside, and then takes it back: nobody subscribes to it.
func (s *stage) quarantine(ctx context.Context) {
	set, err := one[bool](ctx, s, "select exists (select from pg_constraint where conname = 'faults_refuses')")
	if err != nil || !set && s.exec(ctx, "alter table events add constraint faults_refuses check (key <> 'refused') not valid") != nil {
		return
	}
	_, _ = s.direct.Exec(ctx, "select outbox_append('fault.later', 'refused', '{}')")
}

// endQuarantine lets the log take what it refused.
func (s *stage) endQuarantine(ctx context.Context) error {
	return s.exec(ctx, "delete from outbox where key = 'refused'; alter table events drop constraint if exists faults_refuses; delete from quarantine where key = 'refused'")
}

// partitionSize is small, so that a run sees partitions come, and go: in a short one soon, and in a long one not too many.
func (s *stage) partitionSize() int {
	if s.long {
		return 50_000
	}
	return 5_000
}

func (s *stage) smallPartitions(ctx context.Context) error {
	_, err := s.direct.Exec(ctx, fmt.Sprintf(`drop table events_p0; update relay_state set partition_size = %d, partitioned_to = 0;
		select outbox_make_event_partitions(1)`, s.partitionSize()))
	return err
}

// dropAhead drops the partitions that were made for events to come, so that the relay soon has to make them again.
func (s *stage) dropAhead(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, `set lock_timeout = '500ms';
		do $$
		declare
			s relay_state;
		begin
			select * into s from relay_state for update;
			while s.partitioned_to - s.partition_size > s.pos + 5000 loop
				s.partitioned_to := s.partitioned_to - s.partition_size;
				execute format('drop table events_p%s', s.partitioned_to);
				update relay_state set partitioned_to = s.partitioned_to;
			end loop;
		end $$;
		reset lock_timeout`)
}

// age makes the oldest partition of the log old enough for retention to drop it. What it holds is kept for the proof.
func (s *stage) age(ctx context.Context) {
	_, _ = s.direct.Exec(ctx, fmt.Sprintf(`with old as (select (min(pos) / %[1]d + 1) * %[1]d as high from events where relayed_at > clock_timestamp() - interval '1 hour'),
		kept as (
			insert into faults.retired (pos, id, type, key, data, correlation_id, causation_id)
			select pos, id, type, key, data, correlation_id, causation_id from events, old
			where pos < high and relayed_at > clock_timestamp() - interval '1 hour')
		update events set relayed_at = relayed_at - interval '60 days' from old where pos < high and relayed_at > clock_timestamp() - interval '1 hour'`, s.partitionSize()))
}
