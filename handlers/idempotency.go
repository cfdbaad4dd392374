package handlers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	headerReplayed       = "Idempotent-Replayed"
	maxKey               = 255
)

// write is a request that changes something.
type write struct {
	// caller is whose keys these are; empty: of everybody who is nobody yet.
	caller string
	// resource is the thing that the route is about, where it names one: the same key on another cart is another key.
	resource string
	// body is the request's, as it came.
	body []byte
	// work does all of it in tx and returns the answer. After an error nothing is kept.
	work func(ctx context.Context, tx pgx.Tx) (status int, answer any, err error)
}

// answer is a response as it is kept.
type answer struct {
	status   int
	body     []byte
	replayed bool
}

// write runs the work in one transaction and answers. With an Idempotency-Key, the first answer is kept in the same
// transaction, for 24 hours; a repeat gets that answer again, and only after a transaction that wrote and committed:
// then whatever makes a commit safe (a standby, say) has taken the first one too. Refusals are not kept.
func (a *api) write(c echo.Context, w write) error {
	key, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	return a.commit(c, key, w)
}

func (a *api) commit(c echo.Context, key string, w write) error {
	var first answer
	err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) error {
		return inTx(ctx, conn, func(tx pgx.Tx) (err error) {
			if key == "" {
				first, err = run(ctx, tx, w)
			} else {
				first, err = a.once(ctx, tx, w, keyID(w.caller, c.Request().Method+" "+c.Path(), w.resource, key), key)
			}
			return err
		})
	})
	switch {
	case outbox.IsOutcomeUnknown(err):
		return unknownOutcome(err, key != "")
	case err != nil:
		return err
	}
	failpoint.At(failpoint.RequestAnswerBefore)
	if first.replayed {
		c.Response().Header().Set(headerReplayed, "true")
	}
	return c.JSONBlob(first.status, first.body)
}

// change is write for a method that is idempotent by itself, and knows no keys.
func (a *api) change(c echo.Context, work func(ctx context.Context, tx pgx.Tx) (int, any, error)) error {
	return a.commit(c, "", write{work: work})
}

// once gives the answer kept under the key, or runs the work and keeps its answer.
func (a *api) once(ctx context.Context, tx pgx.Tx, w write, id []byte, key string) (answer, error) {
	free, err := a.queries.IdempotencyLock(ctx, tx, hex.EncodeToString(id))
	if err != nil {
		return answer{}, fmt.Errorf("lock the idempotency key: %w", err)
	}
	if !free {
		p := conflictProblem("idempotency-in-flight", "a request with this Idempotency-Key is still under way")
		p.header = map[string]string{"Retry-After": "1"}
		return answer{}, p
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(w.body)
	bodyMAC := mac.Sum(nil)

	kept, err := a.queries.IdempotencyReplay(ctx, tx, id)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return answer{}, fmt.Errorf("look the idempotency key up: %w", err)
	case !hmac.Equal(kept.BodyMac, bodyMAC):
		return answer{}, &problem{
			status: http.StatusUnprocessableEntity, slug: "idempotency-key-reused", title: "The Idempotency-Key is taken",
			detail: "this Idempotency-Key came with another body before: a new request needs a new key",
		}
	default:
		return answer{status: int(kept.Status), body: kept.Body, replayed: true}, nil
	}

	first, err := run(ctx, tx, w)
	if err != nil {
		return answer{}, err
	}
	err = a.queries.IdempotencyKeep(ctx, outbox.Later(tx), shopdb.IdempotencyKeepParams{
		ID: id, BodyMac: bodyMAC, Status: int32(first.status), Body: first.body,
	})
	if err != nil {
		return answer{}, fmt.Errorf("keep the answer: %w", err)
	}
	return first, nil
}

func run(ctx context.Context, tx pgx.Tx, w write) (answer, error) {
	failpoint.At(failpoint.RequestWorkBefore)
	status, content, err := w.work(ctx, tx)
	if err != nil {
		return answer{}, err
	}
	failpoint.At(failpoint.RequestWorkAfter)
	body, err := json.Marshal(content)
	if err != nil {
		return answer{}, fmt.Errorf("encode the answer: %w", err)
	}
	return answer{status: status, body: body}, nil
}

// unknownOutcome is for a commit that was not confirmed: it may have happened.
func unknownOutcome(err error, keyed bool) *problem {
	detail := "it is not known whether this was done: look before you send it again, or use an Idempotency-Key"
	if keyed {
		detail = "it is not known whether this was done: send it again with the same Idempotency-Key"
	}
	p := unavailable(detail)
	p.cause = fmt.Errorf("commit: %w", err)
	return p
}

// keyID is the id of a key. Each part comes after its length, so that no two lists of parts give the same id.
func keyID(parts ...string) []byte {
	h := sha256.New()
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// idempotencyKey reads the header: bare, or quoted as a string of RFC 9651; both ways are the same key. No header is no
// key.
func idempotencyKey(header http.Header) (string, error) {
	values := header.Values(headerIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(values[0])
	ok := len(values) == 1
	if ok && strings.HasPrefix(key, `"`) {
		key, ok = unquote(key)
	}
	for _, r := range []byte(key) {
		ok = ok && r >= 0x20 && r <= 0x7E
	}
	if !ok || len(key) < 1 || len(key) > maxKey {
		const detail = "must be given once, with 1 to 255 printable ASCII characters, bare or in quotes"
		return "", malformed("the header Idempotency-Key "+detail, fieldError{headerIdempotencyKey, detail})
	}
	return key, nil
}

func unquote(quoted string) (string, bool) {
	if len(quoted) < 2 || !strings.HasSuffix(quoted, `"`) {
		return "", false
	}
	var key strings.Builder
	for inner := quoted[1 : len(quoted)-1]; inner != ""; inner = inner[1:] {
		if inner[0] == '"' {
			return "", false
		}
		if inner[0] == '\\' {
			if inner = inner[1:]; inner == "" || inner[0] != '"' && inner[0] != '\\' {
				return "", false
			}
		}
		key.WriteByte(inner[0])
	}
	return key.String(), true
}
