package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// River's UI is behind the pages' login and within a policy that its scripts keep to; what is cancelled in it is a dead letter, and what is
// retried goes on.
func TestRiverUI(t *testing.T) {
	s := startService(t, "OUTBOX_MAX_ATTEMPTS=3", "OUTBOX_RETRY_BASE=1h")
	s.mailMode(451)
	s.signUp("ada@example.com")
	b := startBrowser(t, s.admin)
	b.width(wide)

	b.open("/admin/river/jobs?state=retryable")
	b.fill("token", operatorToken+kb.Enter)
	b.until(`location.pathname === "/admin/river/jobs"`)
	b.until(`document.querySelector('a[href*="/jobs/"]') !== null && document.body.innerText.includes("outbox_deliver")`)
	b.picture("river-jobs")

	b.click("a", "outbox_deliver")
	b.reads("welcome-email")
	b.reads("451")
	b.picture("river-job")
	b.click("button", "Cancel")
	b.reads("cancelled")
	b.picture("river-job-cancelled")
	b.open("/admin/ui/letters/1")
	b.reads("the job was cancelled")
	b.open("/admin/ui/audit")
	row := value[string](b, `document.querySelector("tbody tr").innerText`)
	require.Contains(t, row, operatorName)
	require.Contains(t, row, "cancel")
	require.Contains(t, row, "job ")
	b.picture("river-audit")

	// The navigation leads there; a queue of the engine's is not paused, and the answer says what to do instead.
	s.mailMode(250)
	b.click("nav a", "Jobs")
	b.until(`location.pathname.startsWith("/admin/river/jobs")`)
	b.open("/admin/river/queues/outbox_relay")
	const pause = `[...document.querySelectorAll("button")].find((e) => e.textContent.trim() === "Pause")`
	b.until(pause + ` !== undefined`)
	value[bool](b, `(() => { `+pause+`.click(); return true })()`)
	b.until(`fetch("/admin/river/api/queues/outbox_relay/pause", {method: "PUT"}).then((r) => r.text()).then((t) => t.includes("pause the consumer"))`)
	b.open("/admin/river/queues/outbox_relay")
	b.reads("Active")
	b.picture("river-queue")

	b.open("/admin/river/jobs?state=cancelled")
	b.click("a", "outbox_deliver")
	b.reads("Job Details") // the list has such a button, too
	b.click("button", "Retry")
	// From here: to go elsewhere would take the request back.
	b.until(`fetch("/admin/ui/letters/1").then((r) => r.text()).then((t) => t.includes("has processed it after a replay"))`)
	require.Empty(t, b.complaints(), strings.Join(b.complaints(), "\n"))
}
