package handlers

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"

	"github.com/pgoutbox/pgoutbox/internal/breached"
)

// refusal requires err to be an answer of the kind that a client can read, and returns it.
func refusal(t *testing.T, err error) *problem {
	t.Helper()
	var p *problem
	require.ErrorAs(t, err, &p)
	require.True(t, p.status >= 400 && p.status < 500, p.status)
	require.True(t, p.status != http.StatusUnprocessableEntity || len(p.errs) > 0, "a field is named")
	require.LessOrEqual(t, len(p.errs), maxErrors)
	document, err := p.document("id")
	require.NoError(t, err)
	require.True(t, utf8.Valid(document))
	require.Less(t, len(document), 32<<10)
	return p
}

// FuzzBodies: whatever a body holds, it is taken as every other reader would take it, or refused by name.
func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{"sku":"moka-pot","quantity":1}`, `{"sku":"a\u0000"}`, `{"sku":"\ud83d\ude00","a":[{"b":null}]}`, `{"sku":"\ud83d"}`, `{"sku":"` + "\xff" + `"}`,
		`{"quantity":1e5}`, `{"quantity":-0}`, `[]`, `nul`, `{"a":1,"a":2}`, `{"":{"":{"":""}}}`, "\\", `"\`, `{"\`, `{"sku":null}`, `{"SKU":"x"}`, `{"quantity":9223372036854775808}`,
		`{"data":null,"reason":"r","force":true}`, `{"data":1e999,"force":"yes"}`, `{"email":"a@b","password":"x","name":"ü"}`, `{"payment_method":"pm_card_visa"}`,
		`{"from":"beginning","until":"","appends":false,"reason":"r","force":false}`, `{} {}`, "\ufeff{}", strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), strings.Repeat("[", 20_000),
		`{"a\u0000":1,"a\ud800":2}`, `{"a~/b":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		form := checkJSON(body)
		if form != nil {
			_ = refusal(t, form)
		} else {
			require.True(t, json.Valid(body) && utf8.Valid(body))
		}
		binds[signupRequest](t, body, form)
		binds[loginRequest](t, body, form)
		binds[itemRequest](t, body, form)
		binds[checkoutRequest](t, body, form)
		binds[replayBody](t, body, form)
		binds[actionBody](t, body, form)
		binds[backfillBody](t, body, form)
		binds[paymentsMode](t, body, form)
		binds[struct{}](t, body, form)
	})
}

func binds[T any](t *testing.T, body []byte, form error) {
	t.Helper()
	if form != nil {
		return
	}
	var in, plain T
	if err := bind(body, &in); err != nil {
		p := refusal(t, err)
		for _, e := range p.errs {
			require.True(t, e.Pointer == "" || e.Pointer[0] == '/', e.Pointer)
			require.NotEmpty(t, e.Detail)
		}
		return
	}
	require.NoError(t, json.Unmarshal(body, &plain))
	require.Equal(t, plain, in)
	again, err := json.Marshal(in)
	require.NoError(t, err)
	require.NotContains(t, string(again), `\u0000`)
}

// FuzzIdempotencyKey: a key is the same bare and in quotes, and what is no key is refused as the header's fault.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{
		`x`, `"x"`, `a b,c;d="e"`, `"with \" and \\"`, `"open`, `"a"b"`, `"`, `""`, ``, ` `, `\`, `"\"`, `"\n"`, "ä", "a\tb", " \" \" ", strings.Repeat("x", 255), strings.Repeat(`"`, 256), strings.Repeat("x", 256),
	} {
		f.Add(seed)
	}
	quote := func(key string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"` }
	read := func(value string) (string, error) {
		return idempotencyKey(http.Header{headerIdempotencyKey: {value}})
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := read(value)
		if err != nil {
			p := refusal(t, err)
			require.Equal(t, http.StatusBadRequest, p.status)
			require.Equal(t, headerIdempotencyKey, p.errs[0].Pointer)
			return
		}
		require.True(t, len(key) >= 1 && len(key) <= maxKey)
		again, err := read(quote(key))
		require.NoError(t, err)
		require.Equal(t, key, again)
		if bare := strings.TrimSpace(value); !strings.HasPrefix(bare, `"`) {
			require.Equal(t, bare, key)
		}
		_, err = idempotencyKey(http.Header{headerIdempotencyKey: {value, value}})
		_ = refusal(t, err)
	})
}

// FuzzPrefer: a wait is between nothing and the most there is, whatever else the header prefers.
func FuzzPrefer(f *testing.F) {
	for _, seed := range []string{`wait=5`, `respond-async, WAIT = "7";x=1`, `wait=31`, `wait=99999999999999999999`, `wait`, `wait=-1`, `wait="5`, `wait=5,wait=6`, "wait=\u0665", `wait=;5`, `a="wait=5"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		wait, asked := preferredWait(http.Header{"Prefer": {value}})
		require.True(t, wait >= 0 && wait <= mostWait && (asked || wait == 0) && wait%time.Second == 0)
		among, stillAsked := preferredWait(http.Header{"Prefer": {"respond-async", value, "wait=3"}})
		require.True(t, stillAsked)
		if asked {
			require.Equal(t, wait, among)
			again, _ := preferredWait(http.Header{"Prefer": {"wait=" + strconv.Itoa(int(wait/time.Second))}})
			require.Equal(t, wait, again)
		} else {
			require.Equal(t, 3*time.Second, among)
		}
	})
}

// FuzzCursor: a cursor has one spelling, and leads to where it was made.
func FuzzCursor(f *testing.F) {
	f.Add("", int64(0), []byte("0123456789abcdef"))
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", int64(253_402_300_799_999_999), []byte{})
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", int64(-1), []byte("x"))
	f.Add(strings.Repeat("_", 32), int64(1<<63-1), []byte("x"))
	f.Fuzz(func(t *testing.T, cursor string, micro int64, id []byte) {
		if at, id, ok := parseTimeCursor(cursor); ok {
			require.Equal(t, cursor, timeCursor(at, id))
			require.True(t, at.UTC().Year() >= 1970 && at.UTC().Year() <= 9999, "%s is in every calendar", at)
		}
		at := time.UnixMicro(micro)
		if year := at.UTC().Year(); year < 1970 || year > 9999 || micro > 1<<60 {
			return
		}
		var want uuid.UUID
		copy(want[:], id)
		got, gotID, ok := parseTimeCursor(timeCursor(at, want))
		require.True(t, ok)
		require.True(t, at.Equal(got))
		require.Equal(t, want, gotID)
	})
}

// FuzzQuery: a query is read as it is written or refused; what cannot be read is not passed over.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		`limit=50&cursor=abc`, `limit=`, `limit=0x10`, `limit=1&limit=2`, `limit=%zz`, `a;b`, `%00=1`, `key=%00`, `key=%ff`, `state=gone`, `since=2026-01-31T12:00:00Z`, `since=0000-01-01T00:00:00Z`,
		`since=9999-12-31T23:59:59-23:59`, `LIMIT=5`, `limit=+5`, `&&`, `key=` + strings.Repeat("k", 256), `%C0%80=%ED%A0%80`, strings.Repeat("a=&b=&", 50),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL.RawQuery = raw
		q := newQuery(echo.New().NewContext(req, httptest.NewRecorder()), "limit", "cursor", "state", "since", "key")
		limit, key, state, _ := q.number("limit", 50, 1, 100), q.text("key"), q.oneOf("state", "dead"), q.time("since")
		values, unreadable := url.ParseQuery(raw)
		err := q.problem()
		if err != nil {
			for _, e := range refusal(t, err).errs {
				require.True(t, strings.HasPrefix(e.Pointer, "?"), e.Pointer)
			}
			return
		}
		require.NoError(t, unreadable)
		require.LessOrEqual(t, len(values), 5)
		require.True(t, limit >= 1 && limit <= 100)
		require.True(t, utf8.ValidString(key) && !strings.ContainsRune(key, 0) && len(key) <= 255)
		require.Contains(t, []string{"", "dead"}, state)
		for name, given := range values {
			require.Len(t, given, 1, name)
		}
	})
}

// FuzzPerson: an address, a name and a password are taken only if mails can be sent to them and the tables hold them.
func FuzzPerson(f *testing.F) {
	for _, s := range [][3]string{
		{"ada@example.com", "Ada", "correct horse"},
		{" ada+x@EXAMPLE.com\n", "\u2028Ada\u00a0", "ääääääää"},
		{`"a b"@example.com`, "a\r\nBcc: x", "1234567"},
		{"a..b@example.com", "", strings.Repeat("ü", 129)},
		{"a@[127.0.0.1]", strings.Repeat("n", 201), "pass\xffword"},
		{"ada@exämple.com", "\x7f", ""},
		{"a@b, c@d", "\u0085", "12345678"},
		{"Ada <ada@example.com>", " ", " "},
		{"a@-b.com", "😀", "x"},
		{strings.Repeat("a", 65) + "@b", strings.Repeat("😀", 200), "x"},
		{"a@" + strings.Repeat("b.", 126) + "c", "x", "x"},
		{"ä@b", "x", "x"},
		{"(c)a@b", "x", "x"},
		{"a@b(c)", "x", "x"},
		{"ada@example.com", "Ada Lovelace", "Ada@Example.COM"},
		{"lovelace@example.com", "Ada", "Lovelace"},
		{"a@b", "Ada Lovelace", "ada.lovelace!"},
		{"a@b", "x", "PASSWORD1"},
		{"a@b", "x", "hgfedcba"},
		{"a@b", "x", "e\u0301e\u0301e\u0301e\u0301x\u0301\u0301\u0301"},
		{"a@b", "x", strings.Repeat("a\u0308", 128)},
		{"a@b", "x", "a" + strings.Repeat("\u0301", 100)},
		{"<a@b>", "x", "x"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, email, name, password string) {
		var v collector
		if got := v.email("/email", email); len(v.errs) == 0 {
			parsed, err := mail.ParseAddress(got)
			require.NoError(t, err)
			require.Equal(t, mail.Address{Address: got}, *parsed)
			require.LessOrEqual(t, len(got), maxEmail)
			require.Equal(t, 1, strings.Count(got, "@"))
			for _, r := range got {
				require.True(t, r > ' ' && r < 0x7f && !strings.ContainsRune(`()<>[]\,;:"`, r), "%q", got)
			}
			require.Equal(t, "<"+got+">", parsed.String())
			again := v.email("/email", got)
			require.Equal(t, got, again)
		} else {
			_ = refusal(t, v.problem())
		}
		v = collector{}
		if got := v.name("/name", name); len(v.errs) == 0 {
			require.True(t, got != "" && utf8.RuneCountInString(got) <= 200 && !strings.ContainsAny(got, "\x00\r\n"), "%q", got)
			require.Equal(t, got, v.name("/name", got))
		}
		v = collector{}
		if v.password("/password", password, email, name); len(v.errs) == 0 {
			got := normal(password)
			require.True(t, len(got) >= minPassword && len(got) <= 4*maxPassword)
			require.Equal(t, got, normal(got), "it is hashed as it was judged")
			require.False(t, breached.Has(got))
			require.NotEqual(t, strings.ToLower(password), strings.ToLower(email))
			if other := norm.NFD.String(got); normal(other) == got { // else it has more accents on a letter than are kept together
				v.password("/password", other, email, name)
				require.Empty(t, v.errs, "%q", other)
			}
		} else {
			require.Len(t, v.errs, 1)
			require.Equal(t, "/password", v.errs[0].Pointer)
		}
	})
}

// FuzzIDs: an id in a path, and a session's token, have one spelling.
func FuzzIDs(f *testing.F) {
	for _, seed := range []string{
		"0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6", "urn:uuid:0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6", "{0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6}", "x0192f0c1-2b3c-7d4e-8f90-a1b2c3d4e5f6x", "0192f0c12b3c7d4e8f90a1b2c3d4e5f6",
		"", "+7", "007", "9223372036854775808", "Bearer " + strings.Repeat("A", 43), "bearer  " + strings.Repeat("A", 42) + "B", "Bearer " + strings.Repeat("A", 43) + "=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if id, err := pathID(value, "thing"); err == nil {
			require.True(t, strings.EqualFold(id.String(), value))
		} else {
			require.Equal(t, http.StatusNotFound, refusal(t, err).status)
		}
		header := http.Header{echo.HeaderAuthorization: {value}}
		if token, ok := bearer(header); ok {
			decoded, err := tokenEncoding.DecodeString(token)
			require.NoError(t, err)
			require.Len(t, decoded, tokenBytes)
			require.Equal(t, token, tokenEncoding.EncodeToString(decoded))
		}
	})
}
