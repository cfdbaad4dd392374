package outboxtest

import "context"

// Until gives a Settle up when ctx ends, as if its time were up.
func Until(ctx context.Context) Option { return func(s *settings) { s.ctx = ctx } }
