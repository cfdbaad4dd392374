package outbox

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// InvalidDataError says which parts of an event's data its consumer's code does not take. Nothing was done.
type InvalidDataError struct{ Fields []DataProblem }

// DataProblem is a part of the data, as a JSON pointer, and what is wrong with it. It repeats no value.
type DataProblem struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

func (e *InvalidDataError) Error() string {
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = "data" + f.Pointer + " " + f.Detail
	}
	return "outbox: " + strings.Join(all, "; ")
}

// maxDataProblems is how many parts one error names.
const maxDataProblems = 20

// strictly checks that data decodes into T, and that T has a field for each of its own. What a type decodes itself is its own business.
func strictly[T any](data json.RawMessage) error {
	var into T
	if err := json.Unmarshal(data, &into); err != nil {
		var wrong *json.UnmarshalTypeError
		if !errors.As(err, &wrong) {
			return &InvalidDataError{[]DataProblem{{"", "does not decode: a rehearsal tells why"}}}
		}
		at := ""
		if wrong.Field != "" {
			at = "/" + strings.ReplaceAll(wrong.Field, ".", "/")
		}
		return &InvalidDataError{[]DataProblem{{at, fmt.Sprintf("must not be of the JSON type %s: the code has a %s there", jsonType(wrong.Value), wrong.Type)}}}
	}
	value, err := anyData(data)
	if err != nil {
		return err
	}
	if unknown := unknownFields(nil, "", value, reflect.TypeFor[T]()); len(unknown) > 0 {
		return &InvalidDataError{unknown[:min(len(unknown), maxDataProblems)]}
	}
	return nil
}

// jsonType is the type alone: of a number, the error has its value as well.
func jsonType(of string) string {
	name, _, _ := strings.Cut(of, " ")
	return name
}

var (
	decodesItself = reflect.TypeFor[json.Unmarshaler]()
	decodesText   = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// unknownFields finds the fields for which a type has none.
func unknownFields(found []DataProblem, at string, value any, t reflect.Type) []DataProblem {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); p.Implements(decodesItself) || p.Implements(decodesText) {
		return found
	}
	switch v := value.(type) {
	case map[string]any:
		var fields map[string]reflect.Type
		switch t.Kind() {
		case reflect.Struct:
			fields = jsonFields(t)
		case reflect.Map:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				found = unknownFields(found, at+"/"+pointerEscape.Replace(name), v[name], t.Elem())
			}
			return found
		default:
			return found
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			here := at + "/" + pointerEscape.Replace(name)
			of, ok := fields[strings.ToLower(name)]
			if !ok {
				found = append(found, DataProblem{here, "is not a field that the code knows"})
				continue
			}
			found = unknownFields(found, here, v[name], of)
		}
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for i, e := range v {
				found = unknownFields(found, at+"/"+strconv.Itoa(i), e, t.Elem())
			}
		}
	}
	return found
}

// jsonFields are the fields of a struct by the names that encoding/json takes for them, which it compares without regard to case.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || f.Tag.Get("json") == "-", f.Anonymous && name == "":
			continue
		case name == "":
			name = f.Name
		}
		fields[strings.ToLower(name)] = f.Type
	}
	return fields
}
