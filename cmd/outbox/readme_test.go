package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's configuration table has every variable that is read, and its links lead somewhere.
func TestReadmeIsTrue(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	variables := reflect.TypeFor[config]()
	for i := range variables.NumField() {
		require.Contains(t, string(readme), "| `"+variables.Field(i).Tag.Get("env")+"` |")
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(readme), -1) {
		_, err := os.Stat(filepath.Join("..", "..", link[1]))
		require.NoError(t, err)
	}
}
