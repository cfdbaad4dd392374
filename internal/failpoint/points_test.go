package failpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox/internal/failpoint"
)

// homes is where the points of each kind are marked: below this, a point would mean something else than its name.
var homes = map[string][]string{
	"producer":  {"outbox/tx.go", "outbox/producertx.go", "outbox/append.go"},
	"request":   {"handlers/idempotency.go"},
	"relay":     {"outbox/relay.go", "outbox/sweep.go", "outbox/schedule.go", "outbox/quarantine.go"},
	"drain":     {"outbox/drain.go", "outbox/batch.go", "outbox/chunks.go", "outbox/hold.go", "outbox/write.go", "workers/work.go"},
	"deliver":   {"outbox/deliver.go", "workers/work.go"},
	"payment":   {"workers/consumers/payments.go"},
	"rescue":    {"outbox/maintain.go"},
	"reconcile": {"outbox/maintain.go"},
	"replay":    {"outbox/replay.go"},
	"dismiss":   {"outbox/replay.go"},
	"backfill":  {"outbox/backfill.go"},
	"operation": {"outbox/operation.go", "outbox/operate.go"},
	"retention": {"outbox/retention.go"},
}

// Every point is known, and marked where things of its kind happen.
func TestEveryPointIsMarked(t *testing.T) {
	t.Parallel()
	points := constants(t)
	var known []string
	for _, p := range points {
		known = append(known, p)
	}
	var all []string
	for _, p := range failpoint.All() {
		all = append(all, string(p))
	}
	require.ElementsMatch(t, known, all, "All is not what is declared")
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(all))), len(all), "two points have one name")

	marked := map[string]bool{}
	for constant, files := range marks(t) {
		point, ok := points[constant]
		require.True(t, ok, "%s in %v is no point", constant, files)
		marked[point] = true
		kind, _, _ := strings.Cut(point, ".")
		for _, file := range files {
			require.Contains(t, homes[kind], file, "%s is marked where it does not belong", point)
		}
	}
	for _, point := range all {
		require.True(t, marked[point], "%s is marked nowhere", point)
	}
}

// constants are the declared points, by the names of their constants.
func constants(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	points := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); !ok || of.Name != "Point" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		points[spec.Names[0].Name] = value
		return true
	})
	require.NotEmpty(t, points)
	return points
}

// marks are the files with failpoint.At(failpoint.X), by X.
func marks(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	found := map[string][]string{}
	for _, folder := range []string{"cmd", "handlers", "internal", "outbox", "workers"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if ok && selected(call.Fun) == "At" {
					require.Len(t, call.Args, 1)
					constant := selected(call.Args[0])
					require.NotEmpty(t, constant, "%s: a point is to be named by its constant", name)
					found[constant] = append(found[constant], filepath.ToSlash(name))
				}
				return true
			})
			return err
		}))
	}
	return found
}

// selected is X of failpoint.X, or empty.
func selected(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if of, ok := s.X.(*ast.Ident); ok && of.Name == "failpoint" {
			return s.Sel.Name
		}
	}
	return ""
}
