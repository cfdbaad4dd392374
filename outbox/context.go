package outbox

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

type (
	correlationKey struct{}
	sourceKey      struct{}
	deliveryKey    struct{}
)

// WithCorrelationID returns a context whose appended events carry id, unless they bring one of their own.
// An id that is not valid (ValidCorrelationID) makes those appends fail.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

// CorrelationID is the correlation id of the request, or of the event being handled; empty outside both.
func CorrelationID(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey{}).(string)
	return id
}

// WithSource returns a context whose appended events name source as their producer (Event.Source), unless they name one themselves.
func WithSource(ctx context.Context, source string) context.Context {
	return context.WithValue(ctx, sourceKey{}, source)
}

// producer is who appends with the context: the consumer whose handler it is, or what WithSource says.
func producer(ctx context.Context, d *delivery) string {
	if d != nil {
		return d.consumer
	}
	source, _ := ctx.Value(sourceKey{}).(string)
	return source
}

// delivery is what the context of a handler knows of the event in hand.
type delivery struct {
	consumer string
	eventID  uuid.UUID
	tx       *handlerTx // nil in an external handler
	muted    bool       // what is appended through tx is not written
}

func withDelivery(ctx context.Context, c *Consumer, it *item, tx *handlerTx) context.Context {
	ctx = WithCorrelationID(ctx, it.event.CorrelationID)
	return context.WithValue(ctx, deliveryKey{}, &delivery{consumer: c.Name, eventID: it.event.ID, tx: tx, muted: it.muted})
}

// withSet is the context of a set-based handler: no single event is the cause of what it does.
func withSet(ctx context.Context, c *Consumer, tx *handlerTx, muted bool) context.Context {
	return context.WithValue(ctx, deliveryKey{}, &delivery{consumer: c.Name, tx: tx, muted: muted})
}

func deliveryFrom(ctx context.Context) *delivery {
	d, _ := ctx.Value(deliveryKey{}).(*delivery)
	return d
}

// storable reports whether PostgreSQL takes s as text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// scrub makes any text storable: an error message with a NUL would wedge every completion of the process
// (jsonb refuses it), and one of megabytes would travel with each attempt.
func scrub(s string) string {
	const most = 4000
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " … (cut)"
	}
	return s
}
