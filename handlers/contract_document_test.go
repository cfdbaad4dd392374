package handlers_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/pgoutbox/pgoutbox"
)

func TestDocumentIsOpenAPI(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(pgoutbox.OpenAPI)
	require.NoError(t, err)
	require.Regexp(t, `^3\.1\.\d+$`, doc.OpenAPI)
	require.NoError(t, doc.Validate(t.Context(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaDefaultsValidation()))
}

// Every route is an operation of the document, and every operation a route.
func TestDocumentHasEveryRoute(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	for _, listener := range []string{"api", "admin"} {
		var documented, routed, leftOut []string
		for _, o := range spec().sorted(listener) {
			documented = append(documented, o.name)
		}
		for _, r := range everything(t, listener, s.pool, operatorToken).echo.Routes() {
			if notAPI.MatchString(r.Path) {
				leftOut = append(leftOut, r.Path)
				continue
			}
			routed = append(routed, r.Method+" "+template(r.Path))
		}
		require.ElementsMatch(t, documented, routed, listener)
		require.NotEmpty(t, leftOut)
	}
	for _, path := range []string{"/v1/signup", "/dev/mail", "/admin/dlq", "/admin", "/admin/uix", "/docs", "/openapi.yaml", "/metrics"} {
		require.NotRegexp(t, notAPI, path)
	}
}

// walk calls visit for each object of the document, with what it is to be found at.
func walk(at any, pointer string, visit func(pointer string, object map[string]any)) {
	switch in := at.(type) {
	case map[string]any:
		visit(pointer, in)
		for name, value := range in {
			walk(value, pointer+"/"+escapePointer(name), visit)
		}
	case []any:
		for i, value := range in {
			walk(value, pointer+"/"+strconv.Itoa(i), visit)
		}
	}
}

func TestDocumentUsesAllThatItDefines(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	walk(spec().doc, "", func(_ string, object map[string]any) {
		if ref, ok := object["$ref"].(string); ok {
			spec().at(strings.TrimPrefix(ref, "#")) // it leads somewhere
			used[ref] = true
		}
		if required, ok := object["security"].([]any); ok {
			for _, of := range required {
				for name := range of.(map[string]any) {
					used["#/components/securitySchemes/"+name] = true
				}
			}
		}
	})
	for kind, all := range spec().doc["components"].(map[string]any) {
		for name := range all.(map[string]any) {
			require.True(t, used["#/components/"+kind+"/"+name], "%s %s is not used", kind, name)
		}
	}
}

// An example is what its schema describes: one that a service would refuse, or not give, helps nobody.
func TestDocumentExamplesAreTrue(t *testing.T) {
	t.Parallel()
	c, examples := spec(), 0
	walk(c.doc, "", func(pointer string, object map[string]any) {
		var of place
		var values []any
		switch {
		case object["schema"] != nil && object["example"] != nil:
			of, values = place{pointer, object}.in("schema"), []any{object["example"]}
		case strings.HasPrefix(pointer, "/components/schemas/") && object["examples"] != nil:
			of, values = place{pointer, object}, object["examples"].([]any)
		}
		for _, value := range values {
			examples++
			require.NoError(t, c.valid(of, value), pointer)
		}
	})
	require.Greater(t, examples, 40)
}

// What an object of ours may have is all in the document. What is somebody else's has no properties in it.
func TestDocumentLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	bases := map[string]bool{}
	walk(spec().doc, "", func(_ string, object map[string]any) {
		all, _ := object["allOf"].([]any)
		for _, of := range all {
			if ref, ok := of.(map[string]any)["$ref"].(string); ok && object["unevaluatedProperties"] == false {
				bases[strings.TrimPrefix(ref, "#")] = true
			}
		}
	})
	require.NotEmpty(t, bases)
	objects := 0
	walk(spec().doc, "", func(pointer string, object map[string]any) {
		if object["type"] != "object" || object["properties"] == nil || bases[pointer] || strings.Contains(pointer, "/properties/properties") {
			return
		}
		objects++
		require.Equal(t, false, object["additionalProperties"], pointer)
		for name := range object["properties"].(map[string]any) {
			require.Regexp(t, `^[a-z0-9_]+$`, name, pointer)
		}
	})
	require.Greater(t, objects, 40)
}

func TestDocumentNamesEveryOperation(t *testing.T) {
	t.Parallel()
	ids := map[string]string{}
	for name, o := range spec().operations {
		at := spec().at("/paths/" + escapePointer(o.path)).in(strings.ToLower(o.method)).object
		id, _ := at["operationId"].(string)
		require.Regexp(t, `^[a-z][A-Za-z]+$`, id, name)
		require.Empty(t, ids[id], "%s is two operations", id)
		ids[id] = name
		require.NotEmpty(t, at["summary"], name)
		require.Len(t, at["tags"], 1, name)
		tag := at["tags"].([]any)[0]
		require.Equal(t, strings.HasPrefix(o.path, "/dev/"), tag == "dev", name)
		require.Equal(t, strings.HasPrefix(o.path, "/v1/"), tag == "customers", name)
		require.Equal(t, strings.HasPrefix(o.path, "/admin/"), tag == "operators" && o.authenticated, name)
		require.NotEmpty(t, o.responses, name)
	}
}

// goSlug is where the sources give a problem its type.
var goSlug = regexp.MustCompile(`(?:slug: |conflictProblem\(|slugOverloaded = |slug, p\.title, p\.detail = )"([a-z-]+)"`)

// Every type of problem that the sources know is in the document, with a schema of its own, and no other.
func TestDocumentHasEveryProblem(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "admin_river.go" { // which is no API
			continue
		}
		source, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, match := range goSlug.FindAllSubmatch(source, -1) {
			known[string(match[1])] = true
		}
	}
	known["rate-limited"] = true
	var listed, described []string
	for _, of := range spec().at("/components/schemas/Problem").in("properties").in("type").object["enum"].([]any) {
		listed = append(listed, of.(string))
	}
	for name := range spec().doc["components"].(map[string]any)["schemas"].(map[string]any) {
		schema := spec().at("/components/schemas/" + name)
		if slug, ok := schema.in("properties").in("type").object["const"].(string); ok {
			described = append(described, slug)
			require.NotEmpty(t, schema.in("properties").in("status").object["const"], name)
			require.NotEmpty(t, schema.object["examples"], name)
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(known)), listed)
	require.ElementsMatch(t, listed, described)
}
