package handlers_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/pgoutbox/pgoutbox"
)

// contract is openapi.yaml as the tests ask it: every answer that a test of this package sees has to be in it, and every answer that
// is in it some test has to see.
type contract struct {
	doc        map[string]any
	operations map[string]*operation // by method and path, like "GET /v1/carts/{cart_id}"
	everyPath  map[int]place         // answers of what is no operation

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
	seen     map[string]bool // "GET /v1/account 200"
}

// place is an object of the document, where it is after all references.
type place struct {
	pointer string
	object  map[string]any
}

type operation struct {
	name          string // method and path
	method, path  string
	listeners     []string
	authenticated bool
	parameters    []place
	body          place // nowhere: it takes none
	responses     map[int]place
}

// spec is read once for all tests.
var spec = sync.OnceValue(func() *contract {
	c, err := readContract(pgoutbox.OpenAPI)
	if err != nil {
		panic(err)
	}
	return c
})

const specURL = "https://pgoutbox.example/openapi.json"

func readContract(document []byte) (*contract, error) {
	var raw map[string]any
	if err := yaml.Unmarshal(document, &raw); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	read, err := jsonschema.UnmarshalJSON(bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	c := &contract{
		doc: read.(map[string]any), operations: map[string]*operation{}, everyPath: map[int]place{},
		compiler: jsonschema.NewCompiler(), compiled: map[string]*jsonschema.Schema{}, seen: map[string]bool{},
	}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(specURL, read); err != nil {
		return nil, err
	}
	for path := range c.doc["paths"].(map[string]any) {
		c.readPath(path)
	}
	c.everyPath = c.responses(c.at("").in("x-every-path"))
	return c, nil
}

func (c *contract) readPath(path string) {
	item := c.at("/paths/" + escapePointer(path))
	var listeners []string
	for _, l := range item.object["x-listeners"].([]any) {
		listeners = append(listeners, l.(string))
	}
	for _, method := range []string{"get", "put", "post", "delete", "patch", "head", "options", "trace"} {
		if item.object[method] == nil {
			continue
		}
		o := &operation{method: strings.ToUpper(method), path: path, listeners: listeners}
		o.name = o.method + " " + path
		at := item.in(method)
		o.authenticated = len(at.object["security"].([]any)) > 0
		for _, of := range []place{item, at} {
			list, _ := of.object["parameters"].([]any)
			for i := range list {
				o.parameters = append(o.parameters, c.at(of.pointer+"/parameters/"+strconv.Itoa(i)))
			}
		}
		if at.object["requestBody"] != nil {
			o.body = c.at(at.pointer + "/requestBody")
		}
		o.responses = c.responses(at)
		c.operations[o.name] = o
	}
}

func (c *contract) responses(of place) map[int]place {
	all := map[int]place{}
	for code := range of.object["responses"].(map[string]any) {
		status, err := strconv.Atoi(code)
		if err != nil {
			panic(err) // no default, and no ranges: what can be is listed
		}
		all[status] = c.at(of.pointer + "/responses/" + code)
	}
	return all
}

// at goes to a pointer, and on along references.
func (c *contract) at(pointer string) place {
	var at any = c.doc
	for _, name := range strings.Split(pointer, "/")[1:] {
		switch in := at.(type) {
		case map[string]any:
			at = in[unescapePointer(name)]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil {
				panic(pointer)
			}
			at = in[i]
		}
	}
	object, ok := at.(map[string]any)
	if !ok {
		panic("openapi.yaml has no object at " + pointer)
	}
	if ref, ok := object["$ref"].(string); ok && len(object) == 1 {
		return c.at(strings.TrimPrefix(ref, "#"))
	}
	return place{pointer, object}
}

// in is a member that is no reference.
func (p place) in(name string) place {
	object, _ := p.object[name].(map[string]any)
	return place{p.pointer + "/" + escapePointer(name), object}
}

// content is the schema of a media type, and whether there is that type.
func (c *contract) content(of place, mediaType string) (place, bool) {
	media := of.in("content").in(mediaType)
	if media.object == nil {
		return place{}, false
	}
	return media.in("schema"), true
}

// mediaTypes are those that a body may have.
func mediaTypes(of place) []string { return slices.Sorted(maps.Keys(of.in("content").object)) }

// valid says what of the schema a value does not meet.
func (c *contract) valid(schema place, value any) error {
	compiled, err := c.schema(schema.pointer)
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}

func (c *contract) schema(pointer string) (*jsonschema.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.compiled[pointer]; s != nil {
		return s, nil
	}
	var at strings.Builder
	for _, name := range strings.Split(pointer, "/")[1:] {
		at.WriteString("/" + url.PathEscape(name))
	}
	s, err := c.compiler.Compile(specURL + "#" + at.String())
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", pointer, err)
	}
	c.compiled[pointer] = s
	return s, nil
}

// bodySchema is what the operation takes as JSON.
func (c *contract) bodySchema(o *operation) (place, bool) {
	if o.body.object == nil {
		return place{}, false
	}
	return c.content(o.body, "application/json")
}

// example is a body that the document gives for the operation.
func (c *contract) example(o *operation) any {
	return o.body.in("content").in("application/json").object["example"]
}

// sorted are the operations of a listener, by name.
func (c *contract) sorted(listener string) []*operation {
	var all []*operation
	for _, name := range slices.Sorted(maps.Keys(c.operations)) {
		if o := c.operations[name]; slices.Contains(o.listeners, listener) {
			all = append(all, o)
		}
	}
	return all
}

var (
	escaper   = strings.NewReplacer("~", "~0", "/", "~1")
	unescaper = strings.NewReplacer("~1", "/", "~0", "~")
)

func escapePointer(name string) string { return escaper.Replace(name) }

func unescapePointer(name string) string { return unescaper.Replace(name) }

// decodeJSON is a value as the schemas take it. The rest of the text has to be blank.
func decodeJSON(text []byte) (any, error) {
	if !json.Valid(text) {
		return nil, fmt.Errorf("no JSON: %q", text)
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(text))
}

// unseen are the documented answers that no test has seen.
func (c *contract) unseen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for name, o := range c.operations {
		for status := range o.responses {
			pair := name + " " + strconv.Itoa(status)
			if !c.seen[pair] {
				all = append(all, pair)
			}
		}
	}
	slices.Sort(all)
	return all
}

// wholeRun says whether every test of the package ran, but for what a fuzzer or a benchmark does.
func wholeRun() bool {
	for _, name := range []string{"run", "skip", "list", "fuzz"} {
		if f := flag.Lookup("test." + name); f == nil || f.Value.String() != "" {
			return false
		}
	}
	return true
}

// checkCoverage is for the end of a run of the whole package.
func checkCoverage() bool {
	missing := spec().unseen()
	for _, pair := range missing {
		fmt.Printf("openapi.yaml has an answer that no test has seen: %s\n", pair)
	}
	return len(missing) == 0
}

// The document that is embedded is one that can be read.
func TestContractIsRead(t *testing.T) {
	t.Parallel()
	c := spec()
	for _, o := range c.operations {
		for status, r := range o.responses {
			for _, mediaType := range mediaTypes(r) {
				schema, _ := c.content(r, mediaType)
				if _, err := c.schema(schema.pointer); err != nil {
					t.Errorf("%s %d: %v", o.name, status, err)
				}
			}
		}
	}
}

func encodeJSON(t testing.TB, value any) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}
