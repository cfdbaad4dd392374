package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every command that ends by itself can answer in JSON, and the README has every command.
func TestEveryCommandHasJSON(t *testing.T) {
	t.Parallel()
	var cli commands
	parser, err := newParser(t.Context(), &cli)
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	for _, command := range parser.Model.Leaves(true) {
		first, _, _ := strings.Cut(command.Path(), " ")
		require.Contains(t, string(readme), "| `outbox "+first)
		if first == "dev" || first == "serve" {
			continue
		}
		has := false
		for _, flag := range command.Flags {
			has = has || flag.Name == "json"
		}
		require.True(t, has, command.Path())
	}
	require.NotEmpty(t, parser.Model.Leaves(true))
}
