package handlers

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui/v5/static"

	"github.com/pgoutbox/pgoutbox"
	"github.com/pgoutbox/pgoutbox/handlers/pages"
)

//go:embed docs
var docsFiles embed.FS

// docsPolicy keeps the page to what this listener serves. The pictures in Swagger UI's style sheet are data.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const headerETag = "ETag"

// docs is what a listener says of itself: the document of both listeners, and a page of the paths that this one has.
type docs struct{ page *template.Template }

// docsRoutes need no token: there is nothing in the document that is not in the source.
func docsRoutes(e *echo.Echo) {
	d := &docs{page: template.Must(template.ParseFS(docsFiles, "docs/page.html"))}
	e.GET("/openapi.yaml", openapi)
	e.GET("/docs", d.show)
	e.GET("/docs/:version/:file", docsFile)
}

func openapi(c echo.Context) error {
	hash := sha256.Sum256(pgoutbox.OpenAPI)
	header := c.Response().Header()
	header.Set("Cache-Control", "no-cache") // it is asked for again, and not sent again
	header.Set(headerETag, `"`+hex.EncodeToString(hash[:8])+`"`)
	serveWhole(c, "application/yaml", pgoutbox.OpenAPI)
	return nil
}

var pathParameter = regexp.MustCompile(`:([a-z_]+)`)

func (d *docs) show(c echo.Context) error {
	var paths []string
	for _, r := range c.Echo().Routes() {
		if strings.HasPrefix(r.Path, pages.Root) || strings.HasPrefix(r.Path, pages.River) {
			continue // whether those are there is nobody's business but the operators'
		}
		paths = append(paths, pathParameter.ReplaceAllString(r.Path, "{$1}"))
	}
	slices.Sort(paths)
	encoded, err := json.Marshal(slices.Compact(paths))
	if err != nil {
		return fmt.Errorf("encode the paths: %w", err)
	}
	var page bytes.Buffer
	if err := d.page.Execute(&page, struct{ Version, Paths string }{docsAssets().version, string(encoded)}); err != nil {
		return fmt.Errorf("render the page of the document: %w", err)
	}
	header := c.Response().Header()
	header.Set("Content-Security-Policy", docsPolicy)
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	return c.HTMLBlob(http.StatusOK, page.Bytes())
}

// docsAssets are the page's files by name, and a hash of all of them, so that a browser may keep what it has. Swagger UI's are compressed.
var docsAssets = sync.OnceValue(func() (a struct {
	version string
	files   map[string][]byte
},
) {
	a.files = map[string][]byte{}
	hash := sha256.New()
	for _, from := range []struct {
		fs   fs.FS
		name string
	}{{static.FS, "swagger-ui-bundle.js.gz"}, {static.FS, "swagger-ui.css.gz"}, {docsFiles, "docs/page.css"}, {docsFiles, "docs/page.js"}} {
		content, err := fs.ReadFile(from.fs, from.name)
		if err != nil {
			panic(err) // it is embedded, or this would not have compiled
		}
		a.files[path.Base(from.name)] = content
		hash.Write(content)
	}
	a.version = hex.EncodeToString(hash.Sum(nil)[:8])
	return a
})

func docsFile(c echo.Context) error {
	name := c.Param("file")
	if strings.HasSuffix(name, ".gz") || c.Param("version") != docsAssets().version {
		return echo.ErrNotFound
	}
	content, ok := docsAssets().files[name]
	if !ok {
		compressed, ok := docsAssets().files[name+".gz"]
		if !ok {
			return echo.ErrNotFound
		}
		var err error
		if content, err = uncompressed(c, compressed); err != nil {
			return err
		}
	}
	c.Response().Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	serveWhole(c, mime.TypeByExtension(path.Ext(name)), content)
	return nil
}

// uncompressed leaves to the browser to uncompress what it can.
func uncompressed(c echo.Context, compressed []byte) ([]byte, error) {
	header := c.Response().Header()
	header.Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	if strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
		header.Set(echo.HeaderContentEncoding, "gzip")
		return compressed, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("uncompress a file of the page: %w", err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("uncompress a file of the page: %w", err)
	}
	return content, nil
}

// serveWhole answers with all of it, or with nothing where the client has it: parts of it are of no use.
func serveWhole(c echo.Context, contentType string, content []byte) {
	c.Response().Header().Set(echo.HeaderContentType, contentType)
	c.Request().Header.Del("Range")
	http.ServeContent(c.Response(), c.Request(), "", time.Time{}, bytes.NewReader(content))
}
