package cluster

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// on runs fn on a connection of its own.
func on(ctx context.Context, url string, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return fn(conn)
}

func execute(ctx context.Context, url string, statements ...string) error {
	return on(ctx, url, func(conn *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		return nil
	})
}

// truth is what a query of one boolean answers.
func truth(ctx context.Context, url, sql string) (is bool, err error) {
	err = on(ctx, url, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, sql).Scan(&is) })
	return is, err
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
