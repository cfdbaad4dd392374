package faultkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

// Call is what LedgerOutside posts, with the event's id as Idempotency-Key.
type Call struct {
	EventID uuid.UUID `json:"event_id"`
	Key     string    `json:"key"`
	N       int64     `json:"n"`
}

// outsideTimeout is short, so that a call that gets no answer is made again while the harness looks.
const outsideTimeout = 3 * time.Second

func registerOutside(reg *outbox.Registry, deps Deps) {
	outbox.HandleExternal(reg, LedgerOutside,
		func(ctx context.Context, e outbox.Received[Payload]) (func(context.Context, pgx.Tx) error, error) {
			if err := post(ctx, deps.OutsideURL, Call{e.ID, e.Key, e.Data.N}); err != nil {
				return nil, err
			}
			return func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insertEffect, effect(e)...)
				return err
			}, nil
		}, outbox.On(Sent), outbox.Timeout(outsideTimeout))
}

func post(ctx context.Context, url string, call Call) error {
	if url == "" {
		return errors.New(EnvOutsideURL + " is empty")
	}
	body, err := json.Marshal(call)
	if err != nil {
		return fmt.Errorf("encode the call: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", call.EventID.String())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("call the outside: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("read the outside's answer: %w", err)
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the outside answered %s", res.Status)
	}
	return nil
}
