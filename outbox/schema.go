package outbox

import "github.com/pgoutbox/pgoutbox/internal/outboxdb"

// sql puts the schema before the tables of a query.
func (s Schema) sql(query string) string { return outboxdb.In(string(s), query) }
