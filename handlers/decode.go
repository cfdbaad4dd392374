package handlers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	maxBody = 64 << 10
	// drained is how much of a body that is too large is read and thrown away, and drainTimeout for how long: a client
	// that is still sending when the connection closes does not see the answer.
	drained      = 2 << 20
	drainTimeout = 2 * time.Second
	// maxErrors is how many fields one answer names.
	maxErrors = 20
)

// decode reads a request's body, which must be there, into the struct that into points to; see bind. Every refusal is
// a problem.
func decode(c echo.Context, into any) error {
	_, err := decodeBody(c, into)
	return err
}

// decodeOptional is decode for a route whose fields may all be left out: no body leaves into as it is.
func decodeOptional(c echo.Context, into any) error {
	_, err := decodeOptionalBody(c, into)
	return err
}

// decodeBody is decode, and returns the body as it came.
func decodeBody(c echo.Context, into any) ([]byte, error) {
	body, err := decodeOptionalBody(c, into)
	if err == nil && len(body) == 0 {
		return nil, malformed("the body is required: a JSON object")
	}
	return body, err
}

// decodeOptionalBody is decodeOptional, and returns the body as it came.
func decodeOptionalBody(c echo.Context, into any) ([]byte, error) {
	body, err := readBody(c)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if err := checkContentType(c.Request().Header); err != nil {
		return nil, err
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	return body, bind(body, into)
}

// readBody reads the whole body, or refuses it.
func readBody(c echo.Context) ([]byte, error) {
	r := c.Request()
	defer awaitBody(r.Context())()
	if r.ContentLength > maxBody {
		drain(c)
		return nil, tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{
			status: http.StatusRequestTimeout, slug: "request-timeout", title: "The body did not arrive in time",
			detail: "send the whole body at once", header: map[string]string{"Connection": "close"}, unread: true,
		}
	case err != nil:
		p := malformed("the body could not be read to its end")
		p.cause = err
		return nil, p
	case len(body) > maxBody:
		drain(c)
		return nil, tooLarge()
	}
	return body, nil
}

func drain(c echo.Context) {
	if c.Request().Header.Get("Expect") != "" {
		return // it has not begun, and to read would be to ask for it
	}
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Now().Add(drainTimeout)) // without one: the server's
	if _, err := io.CopyN(io.Discard, c.Request().Body, drained); err == nil {
		c.Response().Header().Set("Connection", "close") // there is more
	}
}

func checkContentType(header http.Header) error {
	mediaType, params, err := mime.ParseMediaType(header.Get(echo.HeaderContentType))
	charset, given := params["charset"]
	if err != nil || mediaType != echo.MIMEApplicationJSON || given && !strings.EqualFold(charset, "utf-8") {
		return unsupported("the header Content-Type must be application/json")
	}
	if encoding := header.Get(echo.HeaderContentEncoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return unsupported("the header Content-Encoding must not be given: the body is plain JSON")
	}
	return nil
}

var rawMessage = reflect.TypeFor[json.RawMessage]()

// bind fills a struct of strings, numbers, booleans, pointers to and lists of them and json.RawMessage from a JSON object. It takes
// names as they are written, and no others than the struct's; a null is a value of no type but json.RawMessage.
func bind(body []byte, into any) error { return bindAt("", body, into) }

// bindAt is bind for an object at a place in the body.
func bindAt(at string, body []byte, into any) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		if at != "" {
			return invalid(at, "must be a JSON object")
		}
		return invalid("", "the body must be a JSON object")
	}
	target := reflect.ValueOf(into).Elem()
	known := map[string]reflect.Value{}
	for i := range target.NumField() {
		name, _, _ := strings.Cut(target.Type().Field(i).Tag.Get("json"), ",")
		known[name] = target.Field(i)
	}
	var errs []fieldError
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		field, ok := known[name]
		if !ok {
			errs = append(errs, fieldError{pointer(at, name), "is not a field of this request"})
			continue
		}
		isNull := string(fields[name]) == "null" && field.Type() != rawMessage
		if err := json.Unmarshal(fields[name], field.Addr().Interface()); err != nil || isNull {
			errs = append(errs, fieldError{pointer(at, name), "must be " + kindName(field.Type())})
		}
	}
	if len(errs) > 0 {
		return validation(errs[:min(len(errs), maxErrors)])
	}
	return nil
}

func kindName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Slice:
		return "a list, each " + kindName(t.Elem())
	default:
		return fmt.Sprintf("of type %s", t.Kind())
	}
}
