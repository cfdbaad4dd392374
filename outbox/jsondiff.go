package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// DataChange is a step from one JSON document to another, as in RFC 6902, with what was there before.
type DataChange struct {
	// Op is add, remove or replace.
	Op string `json:"op"`
	// Path is a JSON pointer; empty: the whole document.
	Path string `json:"path"`
	// From and To are the values before and after.
	From json.RawMessage `json:"from,omitempty"`
	To   json.RawMessage `json:"to,omitempty"`
}

// diffData tells what has to be done to from to make it to: what is added and replaced in the order of the document, what is removed
// from a list from its end. Numbers are the same when they are written the same.
func diffData(from, to json.RawMessage) ([]DataChange, error) {
	before, err := anyData(from)
	if err != nil {
		return nil, err
	}
	after, err := anyData(to)
	if err != nil {
		return nil, err
	}
	return difference([]DataChange{}, "", before, after), nil
}

func anyData(data json.RawMessage) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("outbox: read data: %w", err)
	}
	return v, nil
}

func difference(changes []DataChange, path string, from, to any) []DataChange {
	switch before := from.(type) {
	case map[string]any:
		after, ok := to.(map[string]any)
		if !ok {
			break
		}
		names := slices.Collect(maps.Keys(before))
		for name := range after {
			if _, known := before[name]; !known {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			old, was := before[name]
			now, is := after[name]
			at := path + "/" + pointerEscape.Replace(name)
			switch {
			case !was:
				changes = append(changes, DataChange{Op: "add", Path: at, To: rawData(now)})
			case !is:
				changes = append(changes, DataChange{Op: "remove", Path: at, From: rawData(old)})
			default:
				changes = difference(changes, at, old, now)
			}
		}
		return changes
	case []any:
		after, ok := to.([]any)
		if !ok {
			break
		}
		for i := range min(len(before), len(after)) {
			changes = difference(changes, path+"/"+strconv.Itoa(i), before[i], after[i])
		}
		for i := len(before) - 1; i >= len(after); i-- {
			changes = append(changes, DataChange{Op: "remove", Path: path + "/" + strconv.Itoa(i), From: rawData(before[i])})
		}
		for i := len(before); i < len(after); i++ {
			changes = append(changes, DataChange{Op: "add", Path: path + "/" + strconv.Itoa(i), To: rawData(after[i])})
		}
		return changes
	}
	if !reflect.DeepEqual(from, to) {
		changes = append(changes, DataChange{Op: "replace", Path: path, From: rawData(from), To: rawData(to)})
	}
	return changes
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

func rawData(v any) json.RawMessage {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // it was decoded from JSON
	}
	return bytes.TrimSpace(out.Bytes())
}
