// Package outboxdb holds the statements on the outbox's tables, which sqlc generates from sql/outbox, and puts a schema before their names.
package outboxdb

import (
	"context"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// marker stands before every table and function of ours in sql/outbox.
const marker = "/*schema*/"

var rewritten sync.Map // of schemaQuery to string

type schemaQuery struct{ schema, query string }

// In puts the schema before the tables of a query, which is a constant: what comes of it is kept. Without a schema, they are those that
// the search_path finds.
func In(schema, query string) string {
	if schema == "" {
		return query
	}
	k := schemaQuery{schema, query}
	if q, ok := rewritten.Load(k); ok {
		return q.(string)
	}
	q := strings.ReplaceAll(query, marker, Prefix(schema))
	rewritten.Store(k, q)
	return q
}

// Prefix is what stands before the name of a table.
func Prefix(schema string) string {
	if schema == "" {
		return ""
	}
	return pgx.Identifier{schema}.Sanitize() + "."
}

// On puts the schema before the tables of every query that goes through db.
func On(schema string, db DBTX) DBTX {
	if schema == "" {
		return db
	}
	return schemaDB{db, schema}
}

type schemaDB struct {
	DBTX
	schema string
}

func (d schemaDB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return d.DBTX.Exec(ctx, In(d.schema, sql), args...)
}

func (d schemaDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return d.DBTX.Query(ctx, In(d.schema, sql), args...)
}

func (d schemaDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return d.DBTX.QueryRow(ctx, In(d.schema, sql), args...)
}
