package handlers_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// Why a user did not get what was due is answered by nothing but the address: in any case, and also by all else that may be known.
func TestAdminSearchAnswersByAddress(t *testing.T) {
	t.Parallel()
	o := newOffice(t, map[string]string{operatorToken: "anna"})
	_, event := o.deadLetter(`{"user_id": "secret-datum"}`)
	user := uuid.New()
	_, err := o.pool.Exec(t.Context(), `insert into cursors (consumer, lane, pos) select 'billing', n, 1 from generate_series(0, 63) n`)
	require.NoError(t, err)
	_, err = o.pool.Exec(t.Context(), `insert into users (id, email, name, password_hash, signup_event_id) values ($1, 'Grace@example.com', 'Grace', 'x', $2)`, user, event)
	require.NoError(t, err)

	for _, query := range []string{"grace@EXAMPLE.com", " Grace@example.com ", user.String(), event.String(), "corr-9", "k"} {
		status, found := o.ask("POST", "/admin/search", `{"query":"`+query+`"}`)
		require.Equal(t, 200, status, query)
		require.Nil(t, found["next_cursor"])
		require.Len(t, found["items"], 1, query)
		timeline := found["items"].([]any)[0].(map[string]any)
		require.Equal(t, "corr-9", timeline["correlation_id"])
		open := timeline["open"].([]any)
		require.Len(t, open, 1)
		require.Regexp(t, `^gave up after 3 attempts; its key waits until dead letter 1 is settled; the last error: broken$`, open[0].(map[string]any)["explanation"])
		encoded, err := json.Marshal(found)
		require.NoError(t, err)
		require.NotContains(t, string(encoded), "secret-datum")
		require.NotContains(t, strings.ToLower(string(encoded)), "grace", "no hex digits: ids hold those by chance")
	}
	for _, query := range []string{"nobody@example.com", uuid.NewString(), "nobody", "nobody with a blank"} {
		status, found := o.ask("POST", "/admin/search", `{"query":"`+query+`"}`)
		require.Equal(t, 200, status, query)
		require.Empty(t, found["items"], query)
	}
	for _, c := range []struct {
		body    string
		pointer string
	}{
		{`{}`, "/query"},
		{`{"query":" "}`, "/query"},
		{`{"query":"` + strings.Repeat("x", 256) + `"}`, "/query"},
		{`{"query":"x\u0000"}`, "/query"},
		{`{"query":"x","limit":0}`, "/limit"},
		{`{"query":"x","limit":51}`, "/limit"},
		{`{"query":"x","cursor":"-1"}`, "/cursor"},
		{`{"query":"x","cursor":"y"}`, "/cursor"},
		{`{"query":"x","email":"y"}`, "/email"},
	} {
		status, document := o.ask("POST", "/admin/search", c.body)
		require.Equal(t, 422, status, c.body)
		require.Equal(t, c.pointer, document["errors"].([]any)[0].(map[string]any)["pointer"], c.body)
	}
	status, _ := o.ask("GET", "/admin/search?query=ada@example.com", "")
	require.Equal(t, 405, status, "an address has no place in a URL")
}
