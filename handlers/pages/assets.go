package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

//go:embed static
var staticFiles embed.FS

// assets are the files below static by name, and their version: a hash of all of them, so that a browser may keep what it has for as long
// as it likes.
var assets = sync.OnceValue(func() (a struct {
	version string
	files   map[string][]byte
},
) {
	a.files = map[string][]byte{}
	hash := sha256.New()
	entries, _ := fs.ReadDir(staticFiles, "static") // sorted; an embedded folder can be read
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		content, _ := staticFiles.ReadFile("static/" + e.Name())
		a.files[e.Name()] = content
		hash.Write([]byte(e.Name()))
		hash.Write(content)
	}
	a.version = hex.EncodeToString(hash.Sum(nil)[:8])
	return a
})

// asset is the path of a static file.
func asset(name string) string { return path.Join(Root, "static", assets().version, name) }

// static needs no session: the login looks like the other pages, and there is nothing in it that is not in the source.
func static(c echo.Context) error {
	name := c.Param("file")
	content, ok := assets().files[name]
	if !ok || c.Param("version") != assets().version {
		return echo.ErrNotFound
	}
	header := c.Response().Header()
	header.Set("Cache-Control", "public, max-age=31536000, immutable")
	header.Set(echo.HeaderContentType, mime.TypeByExtension(path.Ext(name)))
	http.ServeContent(c.Response(), c.Request(), name, time.Time{}, bytes.NewReader(content))
	return nil
}
