package outbox_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// statements notes what is sent on each connection.
type statements struct {
	mu   sync.Mutex
	sent map[*pgx.Conn][]string
}

func (s *statements) note(conn *pgx.Conn, sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent == nil {
		s.sent = map[*pgx.Conn][]string{}
	}
	s.sent[conn] = append(s.sent[conn], sql)
}

func (s *statements) TraceQueryStart(ctx context.Context, conn *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.note(conn, q.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}

func (s *statements) TraceBatchQuery(_ context.Context, conn *pgx.Conn, q pgx.TraceBatchQueryData) {
	s.note(conn, q.SQL)
}

func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// has reports whether a query of that name was sent.
func (s *statements) has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sent := range s.sent {
		if slices.ContainsFunc(sent, func(sql string) bool { return strings.HasPrefix(sql, "-- name: "+name+" ") }) {
			return true
		}
	}
	return false
}

var queryName = regexp.MustCompile(`^-- name: (\w+)`)

// afterBegin counts, by the names of the queries, what came first in the transactions of the engine.
func (s *statements) afterBegin() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := map[string]int{}
	for _, sent := range s.sent {
		for i := range sent {
			bounds := strings.Contains(sent[i], "set local lock_timeout") || strings.Contains(sent[i], "EngineBounds")
			if !bounds || i+1 == len(sent) {
				continue
			}
			next := sent[i+1]
			if strings.Contains(next, "EngineCommitsLater") && i+2 < len(sent) { // a bound, too
				next = sent[i+2]
			}
			if name := queryName.FindStringSubmatch(next); name != nil {
				first[name[1]]++
			} else if next != "commit" && next != "rollback" {
				first["unnamed"]++ // River's
			}
		}
	}
	delete(first, "unnamed")
	return first
}
