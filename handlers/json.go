package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may nest.
const maxDepth = 32

// checkJSON refuses what encoding/json would let pass, or mend in silence: bad UTF-8, half surrogates, a name that is
// given twice (which of the two counts differs between readers), NUL (which PostgreSQL cannot hold), deep nesting.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return badText("UTF-8", bytes.ToValidUTF8(body, []byte(string(marker))))
	}
	var whole json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return malformed(fmt.Sprintf("the body must be one JSON value and nothing else (see byte %d)", syntax.Offset))
		}
		return errSyntax()
	}
	if i := halfSurrogate(body); i >= 0 {
		return badText("Unicode", slices.Concat(body[:i], []byte(string(marker)), body[i+6:]))
	}
	return walk(body, 0)
}

// marker stands for what is no character, so that the field that has it can be named. It is none itself.
const marker = '\uFDD0'

func badText(of string, marked []byte) *problem {
	detail := "has a value that is not valid " + of
	var found *problem
	if err := walk(marked, marker); errors.As(err, &found) && len(found.errs) == 1 {
		return malformed("the body is not valid "+of, fieldError{found.errs[0].Pointer, detail})
	}
	return malformed("the body is not valid " + of)
}

func errSyntax() *problem { return malformed("the body must be one JSON value and nothing else") }

func walk(body []byte, forbidden rune) error {
	w := walker{json.NewDecoder(bytes.NewReader(body)), forbidden}
	w.decoder.UseNumber()
	return w.value("", 1)
}

// halfSurrogate is where the body, which is valid JSON, has one half of a surrogate pair without the other, or -1.
func halfSurrogate(body []byte) int {
	for i := 0; i < len(body)-1; i++ {
		if body[i] != '\\' {
			continue
		}
		r, ok := escaped(body[i:])
		switch {
		case !ok:
			i++ // over what is escaped, which may be a backslash
		case r >= 0xDC00 && r <= 0xDFFF:
			return i
		case r >= 0xD800 && r <= 0xDBFF:
			second, ok := escaped(body[i+6:])
			if !ok || second < 0xDC00 || second > 0xDFFF {
				return i
			}
			i += 11
		default:
			i += 5
		}
	}
	return -1
}

// escaped reads an escape like \u00e4.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// walker goes through a body that is valid JSON, knowing where it is.
type walker struct {
	decoder *json.Decoder
	// forbidden is the character that no string may have: NUL, or a marker that is looked for.
	forbidden rune
}

func (w walker) value(where string, depth int) error {
	token, err := w.decoder.Token()
	if err != nil {
		return errSyntax()
	}
	switch t := token.(type) {
	case string:
		if strings.ContainsRune(t, w.forbidden) {
			return invalid(where, "must not contain a NUL character")
		}
	case json.Delim:
		if depth > maxDepth {
			return malformed("the body is nested too deeply", fieldError{where, fmt.Sprintf("is deeper than %d levels", maxDepth)})
		}
		if t == '{' {
			return w.object(where, depth)
		}
		return w.array(where, depth)
	}
	return nil
}

func (w walker) object(where string, depth int) error {
	seen := map[string]bool{}
	for w.decoder.More() {
		token, err := w.decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return errSyntax()
		}
		here := pointer(where, name)
		switch {
		case seen[name]:
			return malformed("a field is given twice", fieldError{here, "is given twice"})
		case strings.ContainsRune(name, w.forbidden):
			return invalid(here, "has a NUL character in its name")
		}
		seen[name] = true
		if err := w.value(here, depth+1); err != nil {
			return err
		}
	}
	_, err := w.decoder.Token()
	return err
}

func (w walker) array(where string, depth int) error {
	for i := 0; w.decoder.More(); i++ {
		if err := w.value(pointer(where, strconv.Itoa(i)), depth+1); err != nil {
			return err
		}
	}
	_, err := w.decoder.Token()
	return err
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the JSON pointer of a member.
func pointer(where, name string) string {
	return where + "/" + pointerEscapes.Replace(shorten(name))
}

// shorten makes a name of a client's invention short, and free of control characters.
func shorten(name string) string {
	const most = 100
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == marker {
			return unicode.ReplacementChar
		}
		return r
	}, name)
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
