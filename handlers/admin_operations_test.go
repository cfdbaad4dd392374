package handlers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A bulk replay is begun, shown and stopped; what cannot be is refused by name.
func TestAdminReplaysManyLetters(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	o.deadLetter(`{}`)
	for _, c := range []struct {
		path, body string
		status     int
		pointer    string
	}{
		{"/admin/dlq/replay", ``, 400, ""},
		{"/admin/dlq/replay", `{"reason":"r"}`, 422, "/filter"},
		{"/admin/dlq/replay", `{"reason":"r","filter":null}`, 422, "/filter"},
		{"/admin/dlq/replay", `{"reason":"r","filter":[]}`, 422, "/filter"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"state":"dead"}}`, 422, "/filter/state"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"consumer":7}}`, 422, "/filter/consumer"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"since":"yesterday"}}`, 422, "/filter/since"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{},"rate":0}`, 422, "/rate"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{},"rate":1001}`, 422, "/rate"},
		{"/admin/dlq/replay", `{"filter":{}}`, 422, "/reason"},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"consumer":"nobody"}}`, 409, ""},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"since":"9999-12-31T23:59:59-23:00","until":"0000-01-01T00:00:00Z"}}`, 409, ""},
		{"/admin/dlq/replay", `{"reason":"r","filter":{"key":"\u0000"}}`, 422, "/filter/key"},
		{"/admin/operations/1/stop", `{"reason":"r"}`, 404, ""},
	} {
		status, document := o.ask("POST", c.path, c.body)
		require.Equal(t, c.status, status, "%s: %v", c.body, document)
		if c.pointer != "" {
			require.Equal(t, c.pointer, document["errors"].([]any)[0].(map[string]any)["pointer"], c.body)
		}
	}
	status, document := o.ask("GET", "/admin/operations/x", "")
	require.Equal(t, 404, status, document)

	status, begun := o.ask("POST", "/admin/dlq/replay",
		`{"filter":{"consumer":"billing","error":"BROK","since":"2020-01-01T00:00:00+02:00"},"reason":"repaired","rate":5,"canary":true}`)
	require.Equal(t, 202, status, begun)
	require.Equal(t, "canary", begun["state"])
	require.EqualValues(t, 1, begun["total"])
	require.EqualValues(t, 5, begun["rate"])
	require.Equal(t, "anna", begun["actor"])
	require.Len(t, begun["groups"], 1)
	status, list := o.ask("GET", "/admin/operations", "")
	require.Equal(t, 200, status)
	require.Len(t, list["items"], 1)
	id := fmt.Sprint("/admin/operations/", begun["id"])
	status, document = o.ask("POST", id+"/stop", `{"reason":" "}`)
	require.Equal(t, 422, status, document)
	status, document = o.ask("POST", id+"/stop", `{"reason":"not today"}`)
	require.Equal(t, 200, status, document)
	status, document = o.ask("GET", id, "")
	require.Equal(t, 200, status)
	require.Equal(t, "stopped", document["state"])
	require.Equal(t, "by anna: not today", document["stopped"])
	status, _ = o.ask("POST", id+"/stop", `{"reason":"not today"}`)
	require.Equal(t, 409, status)
	status, audit := o.ask("GET", "/admin/audit?target=operation+"+strings.TrimPrefix(id, "/admin/operations/"), "")
	require.Equal(t, 200, status)
	require.Len(t, audit["items"], 2)
}
