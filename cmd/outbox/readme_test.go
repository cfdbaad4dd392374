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
	var variables func(of reflect.Type)
	variables = func(of reflect.Type) {
		for i := range of.NumField() {
			if field := of.Field(i); field.Type.Kind() == reflect.Struct {
				variables(field.Type)
			} else {
				require.Contains(t, string(readme), "| `"+field.Tag.Get("env")+"` |")
			}
		}
	}
	variables(reflect.TypeFor[config]())
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(readme), -1) {
		_, err := os.Stat(filepath.Join("..", "..", link[1]))
		require.NoError(t, err)
	}
}
