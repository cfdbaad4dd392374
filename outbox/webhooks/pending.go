package webhooks

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/pgoutbox/pgoutbox/outbox"
)

type also = func(context.Context, pgx.Tx) error

func createConsumer(context.Context, *outbox.Operator, string, []string, outbox.Start, outbox.Action, also) error {
	return errors.ErrUnsupported
}

func subscribe(context.Context, *outbox.Operator, string, []string, outbox.Action, also) error {
	return errors.ErrUnsupported
}

func pause(context.Context, *outbox.Operator, string, outbox.Action, also) error {
	return errors.ErrUnsupported
}

func resume(context.Context, *outbox.Operator, string, outbox.Action, also) error {
	return errors.ErrUnsupported
}
