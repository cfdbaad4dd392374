package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/handlers"
)

const canary = "c4n4ry"

// environment sets variables for one input. It reports whether an environment can hold them.
func environment(t *testing.T, variables map[string]string) bool {
	t.Helper()
	for name, value := range variables {
		if strings.ContainsRune(value, 0) {
			return false
		}
		t.Setenv(name, value)
	}
	return true
}

// FuzzEnvironment: a configuration works, or is refused before anything starts, and no error tells a secret.
func FuzzEnvironment(f *testing.F) {
	for _, tokens := range []string{
		"", "anna:" + canary + "-one, bob:" + canary + "-two,", "anna: " + canary + "-one", "\xff:" + canary + "-one", " :" + canary + "-one", "anna\u0085b:" + canary + "-one", "anna:" + canary + "-one,bob:" + canary + "-one",
		"anna:" + canary + "\tone", "bob:" + canary + "-ü", "c:d:" + canary, "anna:" + canary, "anna :" + canary + "-one", "anna:" + canary + "\n-one", canary + canary, "a:" + strings.Repeat(" ", 8) + ",b:" + canary + "-two",
	} {
		f.Add(tokens, "25", "1s", "1h", "720h", "failures")
	}
	for _, s := range [][5]string{
		{"1", "1ns", "2562047h47m16.854775807s", "-1ns", "all"},
		{"0", "1s", "1h", "720h", "all"},
		{"1001", "0s", "-1h", "59m59s", "ALL"},
		{"9999999999999999999", "soon", "1h", "0", ""},
		{"+5", "1h", "1s", "1h", "failures"},
		{"1e3", "1s", "1h", "inf", "failures"},
		{" 5", "1s", "1h", "2562047h", "failures"},
	} {
		f.Add("anna:"+canary+"-one", s[0], s[1], s[2], s[3], s[4])
	}
	f.Fuzz(func(t *testing.T, tokens, attempts, base, limit, retention, deliveries string) {
		if !environment(t, map[string]string{
			"OUTBOX_ADMIN_TOKENS": tokens, "OUTBOX_MAX_ATTEMPTS": attempts, "OUTBOX_RETRY_BASE": base, "OUTBOX_RETRY_MAX": limit, "OUTBOX_RETENTION": retention,
			"OUTBOX_LOG_DELIVERIES": deliveries,
		}) {
			return
		}
		cfg, err := loadConfig()
		if err != nil {
			if strings.Contains(tokens, canary) && !strings.Contains(attempts+base+limit+retention, canary) {
				require.NotContains(t, err.Error(), canary)
			}
			return
		}
		require.True(t, cfg.MaxAttempts >= 1 && cfg.MaxAttempts <= 1000)
		require.True(t, cfg.RetryBase > 0 && cfg.RetryMax >= cfg.RetryBase)
		require.True(t, cfg.Retention < 0 || cfg.Retention >= time.Hour)
		given, err := cfg.adminTokens()
		require.NoError(t, err)
		e := handlers.NewAdmin(handlers.AdminConfig{Config: handlers.Config{Logger: slog.New(slog.DiscardHandler)}, Tokens: given})
		for token, name := range given {
			require.True(t, utf8.ValidString(name) && strings.TrimSpace(name) == name && name != "", "the audit takes %q", name)
			// As a client sends it and a server reads it.
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/admin/nothing", nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+token)
			var sent strings.Builder
			require.NoError(t, req.Header.Write(&sent))
			require.Equal(t, "Authorization: Bearer "+token+"\r\n", sent.String())
			rec := httptest.NewRecorder()
			e.ServeHTTP(rec, req)
			require.Equal(t, http.StatusNotFound, rec.Code, "the token %q opens nothing", token)
		}
	})
}

// FuzzDatabaseURL: a DATABASE_URL that cannot be read is refused without a word of its password.
func FuzzDatabaseURL(f *testing.F) {
	for _, s := range [][2]string{
		{"postgres://u:", "@127.0.0.1:5432/d"},
		{"postgres://u:a/", "@h/d"},
		{"postgres://u:%zz", "@h"},
		{"postgres://u:a?b", "@h"},
		{"postgres://u:a#", "@h"},
		{"postgres://u:1 ", "@h"},
		{"postgres://u:x@h:", "/d"},
		{"host=h password=", " port=x"},
		{"host=h password = '", "' sslmode=maybe"},
		{"password='a\\'", ""},
		{"host=h password='", ""},
		{"", ""},
		{"postgresql://u:a@", "@h:1:2"},
		{"mysql://u:", "@h"},
		{"postgres://u:p@h/d?sslrootcert=/none/", ""},
		{"postgres://u:p@h/d?pool_max_conns=", ""},
		{"postgres://u:p@h/d?password=", "&port=x"},
		{"postgres://u:", "@h/d?pool_max_conns=0"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if !environment(t, map[string]string{"DATABASE_URL": before + canary + after}) {
			return
		}
		_, _, err := databaseConfig()
		_, also := loadConfig()
		require.Equal(t, err == nil, also == nil)
		if err != nil {
			require.NotContains(t, err.Error(), canary)
			require.NotContains(t, also.Error(), canary)
			return
		}
		_, err = poolConfig(before+canary+after, false)
		require.NoError(t, err)
	})
}

// FuzzCommandLine: a command line is a command with what it needs, or refused.
func FuzzCommandLine(f *testing.F) {
	for _, args := range []string{
		"check\n--json", "consumers", "consumers\nstop\n7", "consumers\nstop\n99999999999999999999", "consumers\nstop\n-1", "consumers\nstop\n0x10", "consumers\nbackfill\nbilling\n--from\nbeginning\n-d", "consumers\nunsubscribe\nbilling\ncart.*\n--actor=\xff",
		"serve\n--role=nobody", "serve\n--role\nworker", "dev\n--data", "--help", "--version", "migrate", "migrate\nup\nup", "", "\x00", "--", "consumers\npause\n--", "-hd", "consumers\nstop\n${enum}",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, line string) {
		type left struct{}
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(left); !ok {
					panic(r)
				}
			}
		}()
		var cli commands
		parser, err := newParser(context.Background(), &cli, kong.Writers(io.Discard, io.Discard), kong.Exit(func(int) { panic(left{}) }))
		require.NoError(t, err)
		command, err := parser.Parse(strings.Split(line, "\n"))
		if err != nil {
			return
		}
		require.NotNil(t, command.Selected())
		if strings.HasPrefix(command.Command(), "serve") {
			require.Contains(t, []string{roleAll, roleAPI, roleWorker}, cli.Serve.Role)
		}
	})
}
