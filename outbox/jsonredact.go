package outbox

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// RedactedText stands where Redact has taken something out.
const RedactedText = "[redacted]"

var redactedData = json.RawMessage(`"` + RedactedText + `"`)

// pointer is a JSON pointer (RFC 6901), by its names; empty: the whole document.
type pointer []string

// parsePointer reports whether s is a JSON pointer.
func parsePointer(s string) (p pointer, ok bool) {
	if s == "" {
		return nil, true
	}
	if s[0] != '/' {
		return nil, false
	}
	p = strings.Split(s[1:], "/")
	for i, name := range p {
		for at := 0; at < len(name); at++ {
			if name[at] == '~' && (at+1 == len(name) || name[at+1] != '0' && name[at+1] != '1') {
				return nil, false
			}
		}
		p[i] = pointerUnescape.Replace(name)
	}
	return p, true
}

var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")

func (p pointer) String() string {
	var s strings.Builder
	for _, name := range p {
		s.WriteString("/" + pointerEscape.Replace(name))
	}
	return s.String()
}

// leadsInto reports whether what is at q is at or below what is at p.
func (p pointer) leadsInto(q pointer) bool { return len(p) <= len(q) && slices.Equal(p, q[:len(p)]) }

// redactData puts RedactedText in the place of what each pointer leads to, and notes in found which of them lead to something. What is
// below a place that was redacted before is found, too: there is nothing to tell it by. It returns how many values it has replaced; with
// none, the data is what it was.
func redactData(data json.RawMessage, at []pointer, found []bool) (json.RawMessage, int, error) {
	v, err := anyData(data)
	if err != nil {
		return nil, 0, err
	}
	replaced := 0
	for i, p := range at {
		var is, changed bool
		v, is, changed = redactValue(v, p)
		found[i] = found[i] || is
		if changed {
			replaced++
		}
	}
	if replaced == 0 {
		return data, 0, nil
	}
	return rawData(v), replaced, nil
}

// redactValue redacts what p leads to in v, in place where that is a part of it. It reports whether there is something, and whether that was
// not redacted before.
func redactValue(v any, p pointer) (out any, found, changed bool) {
	switch {
	case v == any(RedactedText):
		return v, true, false
	case len(p) == 0:
		return RedactedText, true, true
	}
	switch in := v.(type) {
	case map[string]any:
		if member, ok := in[p[0]]; ok {
			in[p[0]], found, changed = redactValue(member, p[1:])
		}
	case []any:
		// As it is written in a pointer: no sign, no zero before it.
		if i, err := strconv.Atoi(p[0]); err == nil && i >= 0 && i < len(in) && strconv.Itoa(i) == p[0] {
			in[i], found, changed = redactValue(in[i], p[1:])
		}
	}
	return v, found, changed
}

// redactDiff does the same to the values before and after each change. Changes below a pointer become one at it: their paths have names in
// them that were a part of the value.
func redactDiff(diff []DataChange, at []pointer, found []bool) ([]DataChange, int, error) {
	diff, replaced := slices.Clone(diff), 0
	for i, p := range at {
		kept, joined := diff[:0], false
		for _, c := range diff {
			path, ok := parsePointer(c.Path)
			switch {
			case !ok:
			case p.leadsInto(path) && len(path) > len(p):
				found[i] = true
				replaced++
				if joined {
					continue
				}
				c, joined = DataChange{Op: "replace", Path: p.String(), From: redactedData, To: redactedData}, true
			case path.leadsInto(p):
				for _, value := range []*json.RawMessage{&c.From, &c.To} {
					if *value == nil {
						continue
					}
					is := []bool{false}
					redacted, n, err := redactData(*value, []pointer{p[len(path):]}, is)
					if err != nil {
						return nil, 0, err
					}
					*value, found[i], replaced = redacted, found[i] || is[0], replaced+n
				}
			}
			kept = append(kept, c)
		}
		diff = kept
	}
	return diff, replaced, nil
}
