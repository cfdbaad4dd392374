package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// stormBodies are good bodies of the routes that take one. Of a route that is not here, a body has any of the fields of all.
var stormBodies = map[string][]string{
	"POST /v1/signup":                         {`{"email":"EMAIL","password":"correct horse","name":"Ada"}`},
	"POST /v1/sessions":                       {`{"email":"EMAIL","password":"correct horse"}`},
	"POST /v1/carts":                          {`{}`},
	"POST /v1/carts/:cart_id/items":           {`{"sku":"filter-beans","quantity":1}`, `{"sku":"moka-pot","quantity":1000}`},
	"POST /v1/carts/:cart_id/checkout":        {`{"payment_method":"pm_card_visa"}`},
	"POST /v1/webhooks/stripe":                {`{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","status":"succeeded","amount":1299,"currency":"eur"}}}`},
	"PUT /dev/mail/mode":                      {`{"smtp_code":250}`},
	"PUT /dev/payments/mode":                  {`{"outage":false}`},
	"POST /admin/dlq/:id/replay":              {`{"reason":"r"}`, `{"data":{"user_id":"y"},"reason":"r"}`, `{"force":true,"reason":"r"}`},
	"POST /admin/dlq/:id/rehearse":            {`{"reason":"r"}`, `{"data":{"user_id":"y"}}`},
	"POST /admin/dlq/:id/dismiss":             {`{"reason":"r"}`},
	"POST /admin/dlq/:id/redact":              {`{"pointers":["/user_id"],"errors":true,"reasons":true,"reason":"r"}`},
	"POST /admin/dlq/replay":                  {`{"filter":{},"rate":1,"canary":false,"reason":"r"}`, `{"filter":{"consumer":"billing","since":"2026-01-31T12:00:00Z"},"reason":"r","force":true}`},
	"POST /admin/search":                      {`{"query":"storm","limit":1}`, `{"query":"EMAIL"}`, `{"query":"billing","cursor":"5"}`},
	"POST /admin/operations/:id/stop":         {`{"reason":"r"}`},
	"POST /admin/consumers/:name/pause":       {`{"reason":"r"}`},
	"POST /admin/consumers/:name/resume":      {`{"reason":"r"}`},
	"POST /admin/consumers/:name/remove":      {`{"reason":"r","force":true}`},
	"POST /admin/consumers/:name/unsubscribe": {`{"pattern":"user.*","reason":"r"}`},
	"POST /admin/consumers/:name/backfill":    {`{"from":"beginning","reason":"r","force":true}`, `{"from":"2026-01-31T12:00:00Z","until":"2026-02-01T12:00:00Z","appends":true,"reason":"r"}`},
	"POST /admin/backfills/:id/stop":          {`{"reason":"r"}`},
	"POST /admin/webhooks":                    {`{"name":"crm","url":"https://crm.invalid/","types":["*"]}`, `{"name":"storm-2","url":"https://crm.invalid/?x=1","types":["user.*"],"secret":"","from":"beginning","reason":"r"}`},
	"PATCH /admin/webhooks/:name":             {`{"types":["*"]}`, `{"url":"https://crm.invalid/2","types":["cart.*","order.paid"],"reason":"r"}`},
	"DELETE /admin/webhooks/:name":            {`{"reason":"r","force":true}`},
	"POST /admin/webhooks/:name/enable":       {`{"reason":"r"}`},
	"POST /admin/webhooks/:name/disable":      {`{"reason":"r"}`},
	"POST /admin/webhooks/:name/rotate":       {`{"reason":"r"}`},
	"POST /admin/webhooks/:name/test":         {`{"reason":"r"}`},
	"POST /admin/webhooks/:name/replay":       {`{"since":"2026-01-31T12:00:00Z","reason":"r"}`},
	"POST /admin/river/api/jobs/cancel":       {`{"ids":["1"]}`},
	"POST /admin/river/api/jobs/delete":       {`{"ids":["1","2"]}`},
	"POST /admin/river/api/jobs/retry":        {`{"ids":[1]}`},
}

// stormFields are the fields of all bodies, and those that no client may set.
var stormFields = func() []string {
	names := map[string]bool{}
	for _, bodies := range stormBodies {
		for _, body := range bodies {
			var fields map[string]json.RawMessage
			if err := json.Unmarshal([]byte(body), &fields); err != nil {
				panic(err)
			}
			for name := range fields {
				names[name] = true
			}
		}
	}
	for _, name := range []string{
		"id", "user_id", "owner", "status", "state", "amount", "currency", "price", "unit_price", "total", "event_id", "correlation_id", "stock", "reserved", "created_at", "version", "__proto__", "constructor",
	} {
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}()

// strangeJSON are values as they are written, some of them wrongly.
var strangeJSON = []string{
	`null`, `true`, `false`, `0`, `-0`, `-1`, `1.0`, `1e400`, `-1e400`, `1e-400`, `1E5`, `9223372036854775808`, `123456789012345678901234567890`, `00`, `+1`, `.5`, `NaN`, `Infinity`, `""`, `" "`, `"\u0000"`, `"\ud800"`, `"\udc00\ud800"`,
	`"\ud83d\ude00"`, `"\uFFFE"`, "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", `"\x"`, `"\`, `"a`, `'a'`, `[]`, `{}`, `[null]`, `[[[[]]]]`, `{"a":{"a":{}}}`, `{"":""}`, `{"a":1,"a":2}`, `undefined`, `//`, `/**/1`, `"\u2028"`, "\"\t\"",
	`["1",2,null]`, `{"consumer":null}`, `{"since":"0000-01-01T00:00:00Z","until":"9999-12-31T23:59:59-23:59"}`, `"2026-01-31T12:00:00Z"`, `"beginning"`, `"user.*"`, `"*"`, `["/user_id",""]`, `["/~2","/a//b","x"]`,
}

// body is the body of a request for the route.
func (m *stormMaker) body(route stormRoute) []byte {
	good := stormBodies[route.String()]
	var fields map[string]json.RawMessage
	if len(good) == 0 || m.chance(15) {
		fields = map[string]json.RawMessage{}
		for range 1 + m.IntN(4) {
			fields[m.pick(stormFields...)] = json.RawMessage(m.value())
		}
	} else {
		// A name of its own for each account; few of them are used again.
		who := fmt.Sprintf("w%d-%d@example.com", m.worker, m.n-m.IntN(3)*m.IntN(400))
		if err := json.Unmarshal([]byte(strings.ReplaceAll(m.pick(good...), "EMAIL", who)), &fields); err != nil {
			panic(err)
		}
	}
	if hashes := strings.HasSuffix(route.path, "/signup") || strings.HasSuffix(route.path, "/sessions"); hashes && !m.chance(30) {
		fields["password"] = json.RawMessage(`""`) // a password that is one takes a while
	}
	for range max(0, m.IntN(5)-2) {
		m.mutate(fields)
	}
	names := slices.Sorted(maps.Keys(fields))
	m.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s:%s", strconv.QuoteToASCII(name), fields[name])
		if m.chance(80) {
			fmt.Fprintf(&b, ",%s:%s", strconv.QuoteToASCII(name), m.value()) // twice
		}
	}
	b.WriteByte('}')
	return m.spoil(b.Bytes())
}

func (m *stormMaker) value() string {
	if m.chance(12) {
		return strconv.Quote(m.strange())
	}
	if m.chance(40) {
		n := m.IntN(60)
		return strings.Repeat(`{"a":[`, n) + "1" + strings.Repeat("]}", n)
	}
	return m.pick(strangeJSON...)
}

// mutate changes one of a body's fields.
func (m *stormMaker) mutate(fields map[string]json.RawMessage) {
	name := ""
	for _, n := range slices.Sorted(maps.Keys(fields)) {
		if name == "" || m.chance(2) {
			name = n
		}
	}
	switch m.IntN(6) {
	case 0:
		delete(fields, name)
	case 1:
		fields[m.pick(stormFields...)] = json.RawMessage(m.value())
	case 2:
		fields[strings.ToUpper(name)] = fields[name]
		delete(fields, name)
	default:
		fields[name] = json.RawMessage(m.value())
	}
	for n, v := range fields {
		if len(v) == 0 {
			fields[n] = json.RawMessage("1")
		}
	}
}

// spoil changes a body as a whole, now and then.
func (m *stormMaker) spoil(body []byte) []byte {
	switch m.IntN(40) {
	case 0:
		return body[:m.IntN(len(body))]
	case 1:
		return append(body, m.pick("{}", ",", " \n", "\x00", "x")...)
	case 2:
		return slices.Concat([]byte("\xef\xbb\xbf"), body)
	case 3:
		return slices.Concat([]byte("["), body, []byte("]"))
	case 4:
		body[m.IntN(len(body))] = byte(m.IntN(256))
	case 5:
		return []byte(m.value())
	case 6:
		if m.chance(20) {
			return slices.Concat(body[:len(body)-1], []byte(`,"x":"`+strings.Repeat("x", 60_000+m.IntN(20_000))+`"}`))
		}
		return []byte{}
	case 7:
		return []byte(strings.Repeat(m.pick("[", `{"a":`, `{"a":[`), m.IntN(5000)))
	}
	return body
}

// form is a body of the pages.
func (m *stormMaker) form() []byte {
	values := url.Values{}
	for _, name := range []string{"reason", "force", "data", "pointers", "errors", "reasons", "from", "until", "appends", "query", "cursor", "consumer", "canary", "rate", "token", "next", "since", "state", "confirm"} {
		if !m.chance(3) {
			continue
		}
		value := m.pick("r", "1", "on", `{"user_id":"y"}`, "/user_id", "beginning", "2026-01-31T12:00:00Z", "2026-01-31T12:00", "billing", stormToken)
		if m.chance(4) {
			value = m.strange()
		}
		if m.chance(20) {
			value = m.value()
		}
		values.Add(name, value)
	}
	body := values.Encode()
	if m.chance(15) {
		body += "&" + m.strange()
	}
	return []byte(body)
}
