package outbox

import (
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// marker stands before every table and function of ours in sql/outbox.
const marker = "/*schema*/"

var rewritten sync.Map // of schemaQuery to string

type schemaQuery struct {
	schema Schema
	query  string
}

// sql puts the schema before the tables of a query.
func (s Schema) sql(query string) string {
	if s == "" {
		return query
	}
	k := schemaQuery{s, query}
	if q, ok := rewritten.Load(k); ok {
		return q.(string)
	}
	q := strings.ReplaceAll(query, marker, s.prefix())
	rewritten.Store(k, q)
	return q
}

// prefix is what stands before the name of a table.
func (s Schema) prefix() string {
	if s == "" {
		return ""
	}
	return pgx.Identifier{string(s)}.Sanitize() + "."
}
