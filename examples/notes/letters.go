package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pgoutbox/pgoutbox/outbox"
	"github.com/pgoutbox/pgoutbox/workers"
)

// letters lists the dead letters, or replays one: letters | replay ID REASON.
func letters(ctx context.Context, pool *pgxpool.Pool, args []string) error {
	jobs, err := workers.NewJobs(pool, schema)
	if err != nil {
		return err
	}
	operator := outbox.NewOperator(pool, jobs, schema, nil)
	switch {
	case args[0] == "letters" && len(args) == 1:
		dead, err := operator.Letters(ctx, outbox.LetterFilter{State: "dead"}, 0, 100)
		for _, d := range dead {
			letter, err := operator.Letter(ctx, d.ID)
			if err != nil {
				return err
			}
			fmt.Printf("%d %s %s: %s\n  data: %s\n  waiting behind it: %d\n",
				d.ID, d.Consumer, d.Type, d.Error, letter.Data, letter.WaitingCount)
		}
		return err
	case args[0] == "replay" && len(args) == 3:
		id, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		_, err = operator.Replay(ctx, id, nil, outbox.Action{Actor: os.Getenv("USER"), Reason: args[2]})
		return err
	}
	return errors.New("usage: notes | notes letters | notes replay ID REASON")
}
