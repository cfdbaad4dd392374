package handlers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/labstack/echo/v4"
)

// generalHeaders are those that any answer may have.
var generalHeaders = []string{
	"Accept-Ranges", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Security-Policy", "Content-Type", "Last-Modified", "Referrer-Policy",
	"Vary", "X-Content-Type-Options", "X-Frame-Options",
}

// notAPI are the routes that the document leaves out.
var notAPI = regexp.MustCompile(`^(/|/docs/:version/:file|/admin/ui(/.*)?|/admin/river(/.*)?)$`)

// watch holds every answer of a listener to the document, and of every request that is done that it is one of the document. What is not fails
// the test, at its end.
func watch(t testing.TB, listener string, e *echo.Echo) *echo.Echo {
	var mu sync.Mutex
	found := map[string]bool{}
	e.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			seen := &exchange{listener: listener, request: c.Request(), answer: &recorder{ResponseWriter: c.Response().Writer}}
			c.Response().Writer = seen.answer
			if body := c.Request().Body; body != nil {
				c.Request().Body = struct {
					io.Reader
					io.Closer
				}{io.TeeReader(body, &seen.sent), body}
			}
			err := next(c)
			seen.route, seen.names, seen.values = c.Path(), c.ParamNames(), c.ParamValues()
			if wrong := spec().check(seen); wrong != nil {
				mu.Lock()
				found[wrong.Error()] = true
				mu.Unlock()
			}
			return err
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for wrong := range found {
			t.Errorf("not as openapi.yaml says: %s", wrong)
		}
	})
	return e
}

// recorder keeps an answer while it is given.
type recorder struct {
	http.ResponseWriter
	status int
	header http.Header // as it was sent
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status, r.header = status, r.Header().Clone()
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status, r.header = http.StatusOK, r.Header().Clone()
	}
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// exchange is a request and its answer.
type exchange struct {
	listener      string
	request       *http.Request
	sent          bytes.Buffer // what was read of the request's body
	answer        *recorder
	route         string // echo's pattern
	names, values []string
}

var routeParameter = regexp.MustCompile(`:([a-z_]+)`)

// template is a route's path as the document writes it.
func template(route string) string { return routeParameter.ReplaceAllString(route, "{$1}") }

func (c *contract) check(x *exchange) error {
	status := x.answer.status
	if status == 0 || notAPI.MatchString(x.route) {
		return nil // the client has left
	}
	said := func(err error) error {
		return fmt.Errorf("%s %s %d: %w\n%s", x.request.Method, template(x.route), status, err, x.answer.body.String())
	}
	o := c.operations[x.request.Method+" "+template(x.route)]
	if o == nil || !slices.Contains(o.listeners, x.listener) {
		if err := c.checkNoOperation(x); err != nil {
			return said(err)
		}
		return nil
	}
	response, ok := o.responses[status]
	if !ok {
		return said(errors.New("is no status of the operation"))
	}
	if err := c.checkAnswer(response, x.answer); err != nil {
		return said(err)
	}
	c.mu.Lock()
	c.seen[o.name+" "+strconv.Itoa(status)] = true
	c.mu.Unlock()
	if status < 300 {
		if err := c.checkRequest(o, x); err != nil {
			return said(fmt.Errorf("was done, and is not valid: %w\n%s", err, x.sent.String()))
		}
	}
	return nil
}

// checkNoOperation is for paths and methods that there are not. Below /admin they are told to operators only.
func (c *contract) checkNoOperation(x *exchange) error {
	status := x.answer.status
	if x.request.Method == http.MethodOptions && status == http.StatusNoContent {
		return nil
	}
	if status == http.StatusUnauthorized && strings.HasPrefix(x.request.URL.Path, "/admin") && x.listener == "admin" {
		return c.checkAnswer(c.at("/components/responses/Unauthenticated"), x.answer)
	}
	response, ok := c.everyPath[status]
	if !ok {
		return errors.New("is no operation, and was not refused as such")
	}
	return c.checkAnswer(response, x.answer)
}

func (c *contract) checkAnswer(response place, a *recorder) error {
	documented := response.in("headers")
	for name := range documented.object {
		of := c.at(documented.pointer + "/" + escapePointer(name))
		given := a.header.Values(name)
		switch {
		case len(given) == 0 && of.object["required"] == true:
			return fmt.Errorf("the header %s is missing", name)
		case len(given) > 0:
			if err := c.validText(of.in("schema"), given[0]); err != nil {
				return fmt.Errorf("the header %s: %w", name, err)
			}
		}
	}
	for name := range a.header {
		isDocumented := slices.ContainsFunc(slices.Collect(keysOf(documented.object)), func(n string) bool { return strings.EqualFold(n, name) })
		if !isDocumented && !slices.Contains(generalHeaders, name) {
			return fmt.Errorf("the header %s is not documented", name)
		}
	}
	if response.object["content"] == nil {
		if a.body.Len() > 0 {
			return errors.New("has a body")
		}
		return nil
	}
	mediaType, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("the type of the content: %w", err)
	}
	schema, ok := c.content(response, mediaType)
	if !ok {
		return fmt.Errorf("%s is no type of the content", mediaType)
	}
	if !strings.HasSuffix(mediaType, "json") {
		return nil
	}
	value, err := decodeJSON(a.body.Bytes())
	if err != nil {
		return err
	}
	return c.valid(schema, value)
}

func keysOf(m map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// validText is valid for a value that is in a path, a query or a header, where everything is text.
func (c *contract) validText(schema place, text string) error {
	var value any = text
	if c.at(schema.pointer).object["type"] == "integer" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("is no whole number: %q", text)
		}
		value = n
	}
	return c.valid(schema, value)
}

func (c *contract) checkRequest(o *operation, x *exchange) error {
	query, err := url.ParseQuery(x.request.URL.RawQuery)
	if err != nil {
		return err
	}
	for _, p := range o.parameters {
		name, _ := p.object["name"].(string)
		var given []string
		switch p.object["in"] {
		case "query":
			given = query[name]
			delete(query, name)
		case "header":
			given = x.request.Header.Values(name)
		case "path":
			given = []string{x.values[slices.Index(x.names, name)]}
		}
		switch {
		case len(given) == 0 && p.object["required"] == true:
			return fmt.Errorf("the parameter %s is missing", name)
		case len(given) == 0, p.object["in"] == "query" && given[0] == "": // an empty one is none
		default:
			if err := c.validText(p.in("schema"), given[0]); err != nil {
				return fmt.Errorf("the parameter %s: %w", name, err)
			}
		}
	}
	schema, ok := c.bodySchema(o)
	if !ok {
		return nil
	}
	if x.sent.Len() == 0 {
		if o.body.object["required"] == true {
			return errors.New("the body is missing")
		}
		return nil
	}
	value, err := decodeJSON(x.sent.Bytes())
	if err != nil {
		return err
	}
	return c.valid(schema, c.trimmed(schema, value))
}

// trimmed is a body without the space that the service takes away.
func (c *contract) trimmed(schema place, body any) any {
	fields, ok := body.(map[string]any)
	if !ok {
		return body
	}
	properties := c.at(schema.pointer).in("properties")
	then := c.at(schema.pointer).in("then").in("properties")
	out := map[string]any{}
	for name, value := range fields {
		text, isText := value.(string)
		if isText && (properties.in(name).object["x-trimmed"] == true || then.in(name).object["x-trimmed"] == true) {
			value = strings.TrimSpace(text)
		}
		out[name] = value
	}
	return out
}
