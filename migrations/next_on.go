//go:build faults

package migrations

import (
	"embed"
	"io/fs"
	"os"
	"strings"
)

// A build for the fault harness can play the next release: with OUTBOX_FAULTS_NEXT=1 it has one set of migrations more.

const nextSet = "next"

//go:embed next/*.sql
var nextFiles embed.FS

// withNext is the released files, and those of the next release in a folder beside.
type withNext struct{ fs.FS }

func (f withNext) Open(name string) (fs.File, error) {
	if name == nextSet || strings.HasPrefix(name, nextSet+"/") {
		return nextFiles.Open(name)
	}
	return f.FS.Open(name)
}

func isNext() bool { return os.Getenv("OUTBOX_FAULTS_NEXT") == "1" }

func embedded() fs.FS {
	if isNext() {
		return withNext{files}
	}
	return files
}

func (r *runner) next() []set {
	if !isNext() {
		return nil
	}
	return []set{{name: nextSet, table: "next_migrations", schema: r.schema}}
}
