package outbox

import (
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const quickUUIDs = "pgoutbox.uuid"

// encodeUUIDs lets the connection encode a uuid.UUID from its bytes. Of itself pgx takes it for a driver.Valuer, tries
// its string in the binary format, fails, and takes the text format: a third of what a drain's process spent.
// Nothing else about the connection, which is the caller's, is changed.
func encodeUUIDs(conn *pgx.Conn) {
	done := conn.PgConn().CustomData()
	if done[quickUUIDs] != nil {
		return
	}
	done[quickUUIDs] = true
	types := conn.TypeMap()
	types.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapUUID}, types.TryWrapEncodePlanFuncs...)
	if t, ok := types.TypeForOID(pgtype.UUIDOID); ok {
		types.RegisterType(t) // so that plans it remembers are made anew
	}
}

func wrapUUID(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	id, ok := value.(uuid.UUID)
	if !ok {
		return nil, nil, false
	}
	return &uuidPlan{}, pgtype.UUID{Bytes: id, Valid: true}, true
}

type uuidPlan struct{ next pgtype.EncodePlan }

func (p *uuidPlan) SetNext(next pgtype.EncodePlan) { p.next = next }

func (p *uuidPlan) Encode(value any, buf []byte) ([]byte, error) {
	return p.next.Encode(pgtype.UUID{Bytes: value.(uuid.UUID), Valid: true}, buf)
}
