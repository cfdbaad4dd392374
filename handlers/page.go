package handlers

import (
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"github.com/pgoutbox/pgoutbox/internal/shop"
)

const (
	defaultLimit = 50
	maxLimit     = 100
)

// List is a page of a list, as every route that has one answers. There is no next one when NextCursor is nil.
type List[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
}

// page makes a list of what a query returned that asked for one row more than limit, and the cursor from the last.
func page[Row, Item any](rows []Row, limit int, item func(Row) Item, cursor func(last Row) string) List[Item] {
	l := List[Item]{Items: make([]Item, 0, min(len(rows), limit))}
	for _, row := range rows[:min(len(rows), limit)] {
		l.Items = append(l.Items, item(row))
	}
	if len(rows) > limit {
		next := cursor(rows[limit-1])
		l.NextCursor = &next
	}
	return l
}

func money(amount int64, currency string) shop.Money {
	return shop.Money{Amount: amount, Currency: currency}
}

// A cursor's content is nobody's business but ours: it may change.
var cursorEncoding = base64.RawURLEncoding.Strict()

// timeCursor stands for a row in an order of (time, id).
func timeCursor(at time.Time, id uuid.UUID) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro()))
	return cursorEncoding.EncodeToString(append(b, id[:]...))
}

func parseTimeCursor(cursor string) (at time.Time, id uuid.UUID, ok bool) {
	b, err := cursorEncoding.DecodeString(cursor)
	if err != nil || len(b) != 8+len(id) {
		return at, id, false
	}
	at = time.UnixMicro(int64(binary.BigEndian.Uint64(b)))
	if at.Year() < 1970 || at.Year() > 9999 {
		return at, id, false // PostgreSQL's calendar ends somewhere too
	}
	copy(id[:], b[8:])
	return at, id, true
}
