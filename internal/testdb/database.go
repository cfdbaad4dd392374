package testdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgoutbox/pgoutbox/migrations"
)

// templateLock is the advisory lock under which templates are made.
const templateLock int64 = 0x746573746462_01

var template struct {
	sync.Mutex
	server, name string
}

// migratedTemplate returns the name of a database on the server to clone, and makes it where needed. The name comes from
// the migrations' content, so that a changed file means a new template. The database gets its name only when
// it is complete.
func migratedTemplate(ctx context.Context, server string) (string, error) {
	template.Lock()
	defer template.Unlock()
	if template.server == server {
		return template.name, nil
	}
	name := "test_template_" + migrations.Fingerprint()[:16]
	err := onServer(ctx, server, func(conn *pgx.Conn) error {
		// The session ends with this function, and the lock with it. The statement waits as long as ctx allows.
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, templateLock); err != nil {
			return err
		}
		var exists bool
		if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil {
			return err
		}
		if exists {
			return nil
		}
		return makeTemplate(ctx, conn, server, name)
	})
	if err != nil {
		return "", fmt.Errorf("make the template database: %w", err)
	}
	template.server, template.name = server, name
	return name, nil
}

func makeTemplate(ctx context.Context, conn *pgx.Conn, server, name string) error {
	unfinished := name + "_new"
	from, to := pgx.Identifier{unfinished}.Sanitize(), pgx.Identifier{name}.Sanitize()
	unfinishedURL, err := withDatabase(server, unfinished)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		`DROP DATABASE IF EXISTS ` + from + ` WITH (FORCE)`,
		`CREATE DATABASE ` + from + ` TEMPLATE template0`,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := migrations.Up(ctx, unfinishedURL, migrations.Options{Shop: true}); err != nil {
		return err
	}
	// Nobody may connect from here on, because a connection to the template makes CREATE DATABASE fail. The backends of
	// the connections that Up has closed may still be on their way out.
	return whileInUse(ctx, func() error {
		if _, err := conn.Exec(ctx, `ALTER DATABASE `+from+` WITH ALLOW_CONNECTIONS false`); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, `ALTER DATABASE `+from+` RENAME TO `+to)
		return err
	})
}

func createDatabase(ctx context.Context, server, name, template string) error {
	// By copying files and not through the write-ahead log: a fifth less time for a test, with a server that does not sync.
	statement := `CREATE DATABASE ` + pgx.Identifier{name}.Sanitize() + ` TEMPLATE ` + pgx.Identifier{template}.Sanitize() + ` STRATEGY FILE_COPY`
	err := onServer(ctx, server, func(conn *pgx.Conn) error {
		return whileInUse(ctx, func() error {
			_, err := conn.Exec(ctx, statement)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("create a database: %w", err)
	}
	return nil
}

func dropDatabase(ctx context.Context, server, name string) error {
	err := onServer(ctx, server, func(conn *pgx.Conn) error {
		return whileInUse(ctx, func() error {
			_, err := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("drop a database: %w", err)
	}
	return nil
}

// whileInUse tries again as long as someone, autovacuum for one, is connected to the database in question. A
// clone that was refused leaves nothing behind.
func whileInUse(ctx context.Context, try func() error) error {
	const objectInUse = "55006"
	for {
		err := try()
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != objectInUse {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}
