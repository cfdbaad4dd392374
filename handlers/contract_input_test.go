package handlers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/pgoutbox/pgoutbox/handlers"
	"github.com/pgoutbox/pgoutbox/internal/mailsink"
)

// byState are the places of a body that the service may refuse for what it knows and no schema does; the document says so in words.
var byState = map[string]*regexp.Regexp{
	"POST /v1/signup":                regexp.MustCompile(`^/password$`),
	"POST /v1/carts/{cart_id}/items": regexp.MustCompile(`^/(sku|quantity)$`),
	"POST /admin/dlq/{id}/redact":    regexp.MustCompile(`^/pointers/[0-9]+$`),
	"POST /admin/dlq/{id}/replay":    regexp.MustCompile(`^/data`),
	"POST /admin/dlq/{id}/rehearse":  regexp.MustCompile(`^/data`),
	"POST /admin/search":             regexp.MustCompile(`^/query$`),
	"POST /admin/webhooks":           regexp.MustCompile(`^/(url|secret)$`),
	"PATCH /admin/webhooks/{name}":   regexp.MustCompile(`^/url$`),
}

// taking are the operations that take a body of ours.
func taking(listener string) []*operation {
	var all []*operation
	for _, o := range spec().sorted(listener) {
		if _, ok := spec().bodySchema(o); ok && o.has(422) {
			all = append(all, o)
		}
	}
	return all
}

// site is a listener with something for every operation that takes a body: a cart that is open, and a letter that is dead.
func site(t testing.TB, listener string) *driver {
	t.Helper()
	if listener == "api" {
		s := newShop(t)
		c := s.customer()
		sink, err := mailsink.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			require.NoError(t, sink.Close(ctx))
		})
		d := everything(t, listener, s.pool, c.token, func(cfg *handlers.Config) { cfg.Dev.Mail = sink })
		d.path = map[string]string{"{cart_id}": c.cart("filter-beans", 1)}
		return d
	}
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	letter, _ := o.deadLetter(`{"user_id":"x"}`)
	_, made := o.ask("POST", "/admin/webhooks", `{"name":"billing","url":"https://billing.example/","types":["*"]}`)
	require.Equal(t, "billing", made["name"])
	d := everything(t, listener, o.pool, operatorToken)
	d.path = map[string]string{"/dlq/{id}": fmt.Sprint("/dlq/", letter), "{name}": "billing"}
	return d
}

// judge sends a body and holds the answer to what the schema says of it.
func (d *driver) judge(t require.TestingT, o *operation, body any) {
	encoded, err := json.Marshal(body)
	require.NoError(t, err)
	value, err := decodeJSON(encoded)
	require.NoError(t, err)
	schema, _ := spec().bodySchema(o)
	invalid := spec().valid(schema, spec().trimmed(schema, value))
	a := d.ask(o, withBody(string(encoded)))
	var refused struct {
		Type   string
		Errors []struct{ Pointer string }
	}
	if a.Code >= 400 {
		require.NoError(t, json.Unmarshal(a.Body.Bytes(), &refused))
	}
	if invalid != nil {
		require.Equal(t, "validation", refused.Type, "%s takes %s, which is not valid: %v\n%s", o.name, encoded, invalid, a.Body)
		require.NotEmpty(t, refused.Errors, "%s %s", o.name, encoded)
		return
	}
	require.NotContains(t, []string{"malformed", "unsupported-media-type"}, refused.Type, "%s %s", o.name, encoded)
	if refused.Type == "validation" {
		rule := byState[o.name]
		require.NotNil(t, rule, "%s refuses %s, which is valid: %s", o.name, encoded, a.Body)
		for _, e := range refused.Errors {
			require.Regexp(t, rule, e.Pointer, "%s refuses %s, which is valid: %s", o.name, encoded, a.Body)
		}
	}
}

// Every example, and every step away from it that its schema forbids: a field that is missing, of another type, too long, too many, out of
// range or not in the list, and one that nobody knows.
func TestContractRefusesWhatItsSchemasDo(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"api", "admin"} {
		d := site(t, listener)
		for _, o := range taking(listener) {
			schema, _ := spec().bodySchema(o)
			example := spec().example(o).(map[string]any)
			d.judge(t, o, example)
			steps := 0
			for _, wrong := range stepsAway(spec().at(schema.pointer), example) {
				value, err := decodeJSON([]byte(encodeJSON(t, wrong)))
				require.NoError(t, err)
				if spec().valid(schema, spec().trimmed(schema, value)) != nil {
					steps++
				}
				d.judge(t, o, wrong)
			}
			require.Positive(t, steps, o.name)
		}
	}
}

// others are values of every type, and texts and numbers that are hardly anywhere allowed.
var others = []any{
	nil, true, 0, -1, 1e9, 1.5, "", " ", "x", "a\x00b", "a\nb", strings.Repeat("x", 129), strings.Repeat("x", 1001), strings.Repeat("ä", 300),
	[]any{},
	[]any{1},
	[]any{"x"},
	map[string]any{},
	map[string]any{"x": 1},
	"2026-01-31", "beginning", "UPPER", "a@b@c", "@", "~", slices.Repeat([]any{"/x"}, 101),
}

// stepsAway are bodies that differ in one place from one that is valid.
func stepsAway(schema place, valid map[string]any) []map[string]any {
	var all []map[string]any
	with := func(name string, value any) map[string]any {
		other := maps.Clone(valid)
		other[name] = value
		return other
	}
	for name := range valid {
		other := maps.Clone(valid)
		delete(other, name)
		all = append(all, other)
	}
	all = append(all, with("no_such_field", 1), with("Reason", "x"), with("", 1))
	for name := range schema.in("properties").object {
		for _, value := range others {
			all = append(all, with(name, value))
		}
		of := spec().at(schema.pointer + "/properties/" + escapePointer(name))
		if inner, ok := valid[name].(map[string]any); ok && of.object["properties"] != nil {
			for _, step := range stepsAway(of, inner) {
				all = append(all, with(name, step))
			}
		}
	}
	return all
}

// Whatever the schemas allow is taken, as far as the state lets it, and whatever they forbid is refused.
func TestContractTakesWhatItsSchemasDo(t *testing.T) {
	t.Parallel()
	for _, listener := range []string{"api", "admin"} {
		d := site(t, listener)
		var names []string
		for _, o := range taking(listener) {
			names = append(names, o.name)
		}
		rapid.Check(t, func(t *rapid.T) {
			o := spec().operations[rapid.SampledFrom(names).Draw(t, "operation")]
			schema, _ := spec().bodySchema(o)
			body := drawObject(t, spec().at(schema.pointer))
			d.judge(t, o, body)
			for name := range body {
				body[name] = rapid.SampledFrom(others).Draw(t, "other")
				break
			}
			d.judge(t, o, body)
		})
	}
}

func drawObject(t *rapid.T, schema place) map[string]any {
	object := map[string]any{}
	required, _ := schema.object["required"].([]any)
	for _, name := range slices.Sorted(maps.Keys(schema.in("properties").object)) {
		if slices.Contains(required, any(name)) || rapid.Bool().Draw(t, "has "+name) {
			object[name] = drawValue(t, name, spec().at(schema.pointer+"/properties/"+escapePointer(name)))
		}
	}
	return object
}

var aTime = rapid.Custom(func(t *rapid.T) string {
	at := time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "second"), 0)
	zone := time.FixedZone("", 60*rapid.IntRange(-720, 720).Draw(t, "zone"))
	return at.In(zone).Format(time.RFC3339)
})

// drawValue draws a value that the schema mostly allows.
func drawValue(t *rapid.T, name string, schema place) any {
	number := func(name string, otherwise int) int {
		n, ok := schema.object[name].(json.Number)
		if !ok {
			return otherwise
		}
		i, _ := n.Int64()
		return int(i)
	}
	kind, _ := schema.object["type"].(string)
	pattern, _ := schema.object["pattern"].(string)
	switch {
	case name == "email" && schema.object["format"] == "email":
		return rapid.StringMatching(`[a-z!#$%&'*+/=?^_{|}~-]{1,8}(\.[A-Z0-9]{1,8})?@([A-Za-z0-9]([A-Za-z0-9-]{0,5}[A-Za-z0-9])?\.){0,3}[a-z]{2,5}`).Draw(t, name)
	case schema.object["properties"] != nil:
		return drawObject(t, schema)
	case schema.object["anyOf"] != nil && kind == "string": // a time, or a word
		return rapid.OneOf(aTime, rapid.SampledFrom([]string{"", "beginning"})).Draw(t, name)
	case schema.object["anyOf"] != nil:
		return rapid.OneOf(rapid.SampledFrom([]int{0, 250}), rapid.IntRange(399, 600)).Draw(t, name)
	case kind == "boolean":
		return rapid.Bool().Draw(t, name)
	case kind == "integer":
		return rapid.IntRange(number("minimum", -1<<31), number("maximum", 1<<31)).Draw(t, name)
	case kind == "array":
		return rapid.SliceOfN(rapid.StringMatching(`(/([a-z0-9äß ]|~[01]){0,5}){0,4}`), 0, min(5, number("maxItems", 5))).Draw(t, name)
	case kind == "" && schema.object["type"] != nil: // any JSON
		return rapid.SampledFrom(others).Draw(t, name)
	case pattern != "" && !strings.Contains(pattern, `[^\x00`):
		return rapid.StringMatching(strings.Trim(pattern, "^$")).Draw(t, name)
	case kind == "string":
		return rapid.StringN(number("minLength", 0), min(number("maxLength", 300), 300), -1).Draw(t, name)
	}
	t.Fatalf("%s %s has a type that is not drawn here", schema.pointer, name)
	return nil
}

// Of the parameters in the query, what their schemas forbid is refused by name, and what they allow is not.
func TestContractOfQueries(t *testing.T) {
	t.Parallel()
	texts := []string{"0", "1", "50", "100", "101", "-1", "x", "1.5", "dead", "gone", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00", "2026-01-31", "%00", strings.Repeat("x", 255), strings.Repeat("x", 256)}
	for _, listener := range []string{"api", "admin"} {
		d := site(t, listener)
		for _, o := range spec().sorted(listener) {
			for _, p := range o.parameters {
				name, _ := p.object["name"].(string)
				if p.object["in"] != "query" || name == "cursor" { // what a cursor is like is nobody's business
					continue
				}
				for _, text := range texts {
					value := strings.ReplaceAll(text, "%00", "\x00")
					invalid := spec().validText(p.in("schema"), value)
					a := d.ask(o, withQuery(name+"="+strings.ReplaceAll(text, "+", "%2B")))
					want := http.StatusOK
					if invalid != nil {
						want = http.StatusUnprocessableEntity
					}
					require.Equal(t, want, a.Code, "%s?%s=%s: %v: %s", o.path, name, text, invalid, a.Body)
				}
				a := d.ask(o, withQuery(name+"=1&"+name+"=1"))
				require.Equal(t, http.StatusUnprocessableEntity, a.Code, a.Body)
			}
		}
	}
}
