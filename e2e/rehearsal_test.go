package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A rehearsal tells that an event would fail again, and what it would do once it is repaired; neither leaves anything behind.
func TestOperatorRehearsesBeforeAReplay(t *testing.T) {
	s := startService(t, "OUTBOX_MAX_ATTEMPTS=1")
	const user = "0193a1b2-0000-7000-8000-000000000001"
	s.exec(`insert into users (id, email, name, password_hash, signup_event_id) values ($1, 'ada@example.com', 'Ada', 'none', $1)`, user)
	s.exec(`select outbox_append('user.signed_up', $1, jsonb_build_object('user_id', $1::text, 'plan', ''))`, user)
	b := startBrowser(t, s.admin)
	signIn(b)
	b.open("/admin/ui/letters?consumer=billing")
	b.click("tbody th a", "")
	b.reads("billing gave up on user.signed_up")

	b.click("button", "Rehearse")
	b.reads("The handler would fail again")
	require.Contains(t, value[string](b, `document.getElementById("rehearsal").innerText`), "the event names no plan")
	b.examine("rehearsal-fails")

	// Repaired by hand, and tried before it is sent.
	b.click(".act summary", "Data")
	value[bool](b, `(() => { document.getElementById("data").value = JSON.stringify({user_id: "`+user+`", plan: "trial"}); return true })()`)
	b.click("button", "Rehearse")
	b.until(`document.getElementById("rehearsal") !== null && document.getElementById("rehearsal").innerText.includes("/plan")`)
	outcome := value[string](b, `document.getElementById("rehearsal").innerText`)
	b.examine("rehearsal")
	require.Contains(t, outcome, "All of it was taken back")
	require.Contains(t, outcome, "subscriptions")
	require.Contains(t, value[string](b, `document.getElementById("data").value`), "trial", "what was typed is kept")
	b.open("/admin/ui/audit")
	require.Contains(t, value[string](b, `document.querySelector("tbody").innerText`), "rehearse")
	b.examine("rehearsal-audit")
	require.Empty(t, b.complaints())
}
