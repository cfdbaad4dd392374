package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// initCluster makes the cluster unless it is there, and returns the superuser's password. The caller holds the directory's lock.
func initCluster(ctx context.Context, binDir, dir string, fsync bool, acct account) (password string, err error) {
	cluster := clusterDir(dir)
	if _, err := os.Stat(filepath.Join(cluster, "PG_VERSION")); err == nil {
		if err := checkVersion(ctx, binDir, cluster); err != nil {
			return "", err
		}
		data, err := os.ReadFile(passwordFile(dir))
		if err != nil {
			return "", fmt.Errorf("the cluster's password: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look at the cluster: %w", err)
	}

	// The password is in place before the cluster appears, so a cluster that is whole always has one.
	password = rand.Text()
	if err := writeFile(passwordFile(dir), password+"\n"); err != nil {
		return "", fmt.Errorf("keep the password: %w", err)
	}
	unfinished := cluster + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("remove an interrupted initdb: %w", err)
	}
	if err := os.Mkdir(unfinished, 0o700); err != nil {
		return "", fmt.Errorf("create cluster: %w", err)
	}
	if err := acct.own(unfinished); err != nil {
		return "", err
	}
	if err := runInitdb(ctx, binDir, dir, unfinished, password, fsync, acct); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, cluster); err != nil {
		return "", fmt.Errorf("create cluster: %w", err)
	}
	return password, nil
}

// runInitdb prefers C.UTF-8, which knows the case of all letters and sorts by code point on every machine, and takes
// plain C where the system has no such locale.
func runInitdb(ctx context.Context, binDir, dir, cluster, password string, fsync bool, acct account) error {
	// initdb reads the password as its own user, so it gets a copy for the while.
	pwfile := filepath.Join(dir, "password.initdb")
	if err := writeFile(pwfile, password+"\n"); err != nil {
		return fmt.Errorf("pass the password: %w", err)
	}
	defer func() { _ = os.Remove(pwfile) }()
	if err := acct.own(pwfile); err != nil {
		return err
	}
	var failed error
	for _, locale := range []string{"C.UTF-8", "C"} {
		args := []string{
			"--pgdata=" + cluster, "--username=" + User, "--pwfile=" + pwfile, "--auth=scram-sha-256",
			"--encoding=UTF8", "--locale=" + locale,
		}
		if !fsync {
			args = append(args, "--no-sync")
		}
		cmd := exec.CommandContext(ctx, filepath.Join(binDir, "initdb"), args...)
		cmd.Dir = dir
		cmd.Env = serverEnv()
		cmd.SysProcAttr = baseAttr(acct)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("initdb: %w", ctx.Err())
		}
		failed = fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
		if !bytes.Contains(out, []byte("locale")) {
			return failed
		}
	}
	return failed
}

// checkVersion refuses a cluster of another major version: PostgreSQL would too, with a message that names no way out.
func checkVersion(ctx context.Context, binDir, cluster string) error {
	data, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("the cluster's version: %w", err)
	}
	made := strings.TrimSpace(string(data))
	out, err := exec.CommandContext(ctx, filepath.Join(binDir, "postgres"), "--version").Output()
	if err != nil {
		return fmt.Errorf("PostgreSQL's version: %w", err)
	}
	has := string(numberInPath.Find(out)) // "postgres (PostgreSQL) 15.14 (Debian …)"
	major, _, _ := strings.Cut(has, ".")
	if major != made && has != made {
		return fmt.Errorf("the data in %s was made by PostgreSQL %s, and %s is version %s: set %s to the programs of version %s, or begin anew without the data",
			cluster, made, binDir, has, EnvBinDir, made)
	}
	return nil
}

// serverEnv keeps the caller's PG* variables out: PGDATA, PGPORT or PGOPTIONS would change what is run.
func serverEnv() []string {
	env := []string{"LC_ALL=C", "TZ=UTC"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "LC_"), name == "LANG", name == "TZ":
		case strings.Contains(name, "TOKEN"), strings.Contains(name, "SECRET"), name == "DATABASE_URL", name == "SMTP_URL":
		default:
			env = append(env, kv)
		}
	}
	return env
}

// writeFile replaces the file, so that an interruption leaves the old content or the new.
func writeFile(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
