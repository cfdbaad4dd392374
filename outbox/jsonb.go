package outbox

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDataDepth is how deep data may nest: PostgreSQL parses it on its stack.
	maxDataDepth = 1000
	// The digits of PostgreSQL's numeric, in which jsonb keeps its numbers.
	maxWholeDigits, maxFractionDigits = 131072, 16383
)

// refusedData says why jsonb would not take data, or that it is larger there than an event may be; empty: it is
// taken. Data may be fine JSON and all the same be refused: jsonb has no NUL, no lone surrogate and no number beyond
// numeric, and it writes numbers out and puts a space after each comma and colon, which is how it is measured.
func refusedData(data []byte) string {
	if !utf8.Valid(data) {
		return "must be UTF-8"
	}
	if !json.Valid(data) {
		return "must be JSON"
	}
	size, depth := 0, 0
	for i := 0; i < len(data); {
		switch c := data[i]; {
		case c == '"':
			n, written, reason := measureString(data[i:])
			if reason != "" {
				return reason
			}
			i, size = i+n, size+written
			continue
		case c == '-' || '0' <= c && c <= '9':
			n, written, fits := measureNumber(data[i:])
			if !fits {
				return "must not contain a number beyond PostgreSQL's numeric"
			}
			i, size = i+n, size+written
			continue
		case c == '{' || c == '[':
			if depth++; depth > maxDataDepth {
				return fmt.Sprintf("must not nest deeper than %d", maxDataDepth)
			}
			size++
		case c == '}' || c == ']':
			depth--
			size++
		case c == ',' || c == ':':
			size += 2
		case c != ' ' && c != '\t' && c != '\n' && c != '\r':
			size++
		}
		i++
	}
	if size > MaxDataBytes {
		return "must be at most 1 MiB of JSON as PostgreSQL writes it"
	}
	return ""
}

// measureString measures the JSON string that s starts with: its length, and its length as jsonb writes it.
func measureString(s []byte) (n, written int, reason string) {
	written = 2
	for n = 1; s[n] != '"'; {
		if s[n] != '\\' {
			n++
			written++
			continue
		}
		if s[n+1] != 'u' {
			n += 2
			written += 2
			continue
		}
		r := escaped(s[n:])
		n += 6
		switch {
		case r == 0:
			return n, written, "must not contain a NUL character"
		case utf16.IsSurrogate(r):
			low := rune(0)
			if s[n] == '\\' && s[n+1] == 'u' {
				low = escaped(s[n:])
				n += 6
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return n, written, "must not contain half of a surrogate pair"
			}
			written += 4
		case r < ' ':
			written += 6
		case r == '"' || r == '\\':
			written += 2
		default:
			written += utf8.RuneLen(r)
		}
	}
	return n + 1, written, ""
}

// escaped decodes the escape, a u and four hexadecimal digits, that s starts with.
func escaped(s []byte) rune {
	r, _ := strconv.ParseUint(string(s[2:6]), 16, 16) // valid JSON has four hexadecimal digits there
	return rune(r)
}

// measureNumber measures the JSON number that s starts with: its length, its length written out, and whether numeric
// takes it.
func measureNumber(s []byte) (n, written int, fits bool) {
	whole, fraction, exponent := 0, 0, 0
	digits := func() (count int) {
		for ; n < len(s) && '0' <= s[n] && s[n] <= '9'; n++ {
			count++
		}
		return count
	}
	if s[0] == '-' {
		n++
	}
	whole = digits()
	if n < len(s) && s[n] == '.' {
		n++
		fraction = digits()
	}
	if n < len(s) && (s[n] == 'e' || s[n] == 'E') {
		n++
		from := n
		if s[n] == '+' || s[n] == '-' {
			n++
		}
		digits()
		var err error
		if exponent, err = strconv.Atoi(string(s[from:n])); err != nil || exponent > 1<<20 || exponent < -1<<20 {
			return n, 0, false
		}
	}
	whole, fraction = max(1, whole+exponent), max(0, fraction-exponent)
	written = whole + fraction
	if fraction > 0 {
		written++ // the point
	}
	if s[0] == '-' {
		written++
	}
	return n, written, whole <= maxWholeDigits && fraction <= maxFractionDigits
}
