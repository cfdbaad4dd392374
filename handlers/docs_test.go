package handlers_test

import (
	"compress/gzip"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox"
)

// get asks a listener for a path, without a token.
func (d *driver) get(path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(d.t.Context(), http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a := httptest.NewRecorder()
	d.echo.ServeHTTP(a, r)
	return a
}

// Both listeners give the same document to everybody, and not again to whoever has it.
func TestDocsDocument(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"api", "admin"} {
		d := everything(t, listener, nil, operatorToken)
		a := d.get("/openapi.yaml", "Range", "bytes=0-9")
		require.Equal(t, 200, a.Code)
		require.Equal(t, "application/yaml", a.Header().Get("Content-Type"))
		require.Equal(t, "no-cache", a.Header().Get("Cache-Control"))
		require.Equal(t, string(pgoutbox.OpenAPI), a.Body.String())
		tag := a.Header().Get("ETag")
		a = d.get("/openapi.yaml", "If-None-Match", tag)
		require.Equal(t, 304, a.Code)
		require.Empty(t, a.Body.String())
		require.Equal(t, 200, d.get("/openapi.yaml", "If-None-Match", `"another"`).Code)
	}
}

var reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)

// The page asks nothing of any other host, is of the paths of its own listener, and works below a prefix: all it refers to is relative.
func TestDocsPage(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"api", "admin"} {
		d := everything(t, listener, nil, operatorToken)
		a := d.get("/docs")
		require.Equal(t, 200, a.Code)
		require.Equal(t, "text/html; charset=UTF-8", a.Header().Get("Content-Type"))
		policy := a.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, policy, "http")
		require.Equal(t, "DENY", a.Header().Get("X-Frame-Options"))

		page, files := a.Body.String(), 0
		require.NotRegexp(t, `style=|onload=|<script>`, page)
		for _, match := range reference.FindAllStringSubmatch(page, -1) {
			if match[1] == "data:," { // no picture, which a browser would ask for otherwise
				continue
			}
			require.Regexp(t, `^(openapi\.yaml|docs/[0-9a-f]{16}/[a-z.-]+)$`, match[1])
			packed, plain := d.get("/"+match[1], "Accept-Encoding", "gzip"), d.get("/"+match[1])
			require.Equal(t, []int{200, 200}, []int{packed.Code, plain.Code}, match[1])
			require.Equal(t, packed.Header().Get("Content-Type"), plain.Header().Get("Content-Type"))
			if packed.Header().Get("Content-Encoding") == "gzip" {
				require.Equal(t, "Accept-Encoding", plain.Header().Get("Vary"))
				unpacked, err := gzip.NewReader(packed.Body)
				require.NoError(t, err)
				content, err := io.ReadAll(unpacked)
				require.NoError(t, err)
				require.Equal(t, plain.Body.Len(), len(content))
			}
			if strings.HasPrefix(match[1], "docs/") {
				files++
				require.Contains(t, plain.Header().Get("Cache-Control"), "immutable")
			}
		}
		require.Equal(t, 4, files)

		var paths, documented []string
		encoded := regexp.MustCompile(`data-paths="([^"]*)"`).FindStringSubmatch(page)
		require.NoError(t, json.Unmarshal([]byte(html.UnescapeString(encoded[1])), &paths))
		for _, o := range spec().sorted(listener) {
			documented = append(documented, o.path)
		}
		slices.Sort(documented)
		require.Subset(t, paths, documented)
		require.NotContains(t, page, "/admin/ui")
		require.NotContains(t, page, "/admin/river")
		require.Equal(t, listener == "admin", slices.Contains(paths, "/admin/dlq"))
		for _, none := range []string{"/docs/", "/docs/x/page.js", "/docs/x/swagger-ui.css.gz", strings.Replace("/docs/V/swagger-ui.css.gz", "V", version(page), 1), strings.Replace("/docs/V/none", "V", version(page), 1)} {
			require.Equal(t, 404, d.get(none).Code, none)
		}
	}
}

func version(page string) string {
	return regexp.MustCompile(`docs/([0-9a-f]{16})/`).FindStringSubmatch(page)[1]
}
