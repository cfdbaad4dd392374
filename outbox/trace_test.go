package outbox_test

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// statements notes what is sent on each connection.
type statements struct {
	mu   sync.Mutex
	sent map[*pgx.Conn][]string
}

func (s *statements) TraceQueryStart(ctx context.Context, conn *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent == nil {
		s.sent = map[*pgx.Conn][]string{}
	}
	s.sent[conn] = append(s.sent[conn], q.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

var queryName = regexp.MustCompile(`^-- name: (\w+)`)

// afterBegin counts, by the names of the queries, what came first in the transactions of the engine.
func (s *statements) afterBegin() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := map[string]int{}
	for _, sent := range s.sent {
		for i := range sent {
			if !strings.Contains(sent[i], "set local lock_timeout") || i+1 == len(sent) {
				continue
			}
			if name := queryName.FindStringSubmatch(sent[i+1]); name != nil {
				first[name[1]]++
			} else if sent[i+1] != "commit" && sent[i+1] != "rollback" {
				first["unnamed"]++ // River's
			}
		}
	}
	delete(first, "unnamed")
	return first
}
