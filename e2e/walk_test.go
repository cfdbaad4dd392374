package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// An operator's night: a mail that was not sent, why, and what is done about it.
func TestOperatorFindsAndMendsALostMail(t *testing.T) {
	s := startService(t, "OUTBOX_MAX_ATTEMPTS=3", "OUTBOX_RETRY_BASE=300ms")
	s.mailMode(451)
	s.signUp("ada@example.com")
	b := startBrowser(t, s.admin)

	// Whatever is asked for, the way leads over the login, and back.
	b.open("/admin/ui/letters")
	b.reads("Operator's token")
	b.examine("login")
	b.fill("token", "a wrong token"+kb.Enter)
	b.reads("That is no operator's token.")
	b.fill("token", operatorToken+kb.Enter)
	b.until(`location.pathname === "/admin/ui/letters"`)
	b.until(byText("tbody th a", "1") + ` !== undefined`) // the page finds the letter by itself, should it come later
	b.examine("letters")

	// Why did this user not get the welcome mail? From the address to the answer.
	b.open("/admin/ui/search")
	b.examine("search")
	b.fill("query", "ADA@example.com"+kb.Enter)
	b.until(`location.pathname.startsWith("/admin/ui/trace/")`)
	require.NotContains(t, strings.ToLower(value[string](b, `location.href`)), "ada@", "an address has no place in a URL")
	answer := value[string](b, `document.querySelector(".open").innerText`)
	require.Contains(t, answer, "welcome-email")
	require.Contains(t, answer, "gave up after 3 attempts")
	require.Contains(t, answer, "451")
	require.NotContains(t, answer, "billing")
	b.examine("timeline")
	b.click("a", "user.signed_up")
	b.reads("Schema version")
	b.examine("event")

	// With more than one request of the user's, all of them are on one page, what has not happened first.
	s.fillCart("ada@example.com")
	b.open("/admin/ui/search")
	b.fill("query", "ada@example.com"+kb.Enter)
	b.reads("1 thing has not happened, in 3 timelines.")
	require.Contains(t, value[string](b, `document.querySelector(".open").innerText`), "gave up after 3 attempts")
	b.examine("results")

	// Repaired, and sent again with other data; the page itself says when it has succeeded.
	b.click(".open a", "Look at dead letter 1")
	b.reads("What went wrong")
	b.examine("letter")
	s.mailMode(250)
	b.click(".act summary", "Data")
	value[bool](b, `(() => { const e = document.getElementById("data"), d = JSON.parse(e.value); d.plan = "repaired"; e.value = JSON.stringify(d); return true })()`)
	b.click("button", "Replay")
	b.reads("A reason is required")
	require.Contains(t, value[string](b, `document.getElementById("data").value`), "repaired", "what was typed is kept")
	b.examine("letter-refused")
	b.fill("replay-reason", "the mail server is back")
	b.click("button", "Replay")
	b.reads("was sent again with the new data")
	b.reads("has processed it after a replay")
	b.examine("letter-replayed")
	require.NotContains(t, value[string](b, `location.href`), "done=")

	b.open("/admin/ui/audit")
	row := value[string](b, `document.querySelector("tbody tr").innerText`)
	for _, part := range []string{operatorName, "replay", "dead letter 1", "the mail server is back"} {
		require.Contains(t, row, part)
	}
	b.examine("audit")
	require.Empty(t, b.complaints())
}

// A consumer is paused, its lag is seen to grow, and it is resumed; then it runs again over its past.
func TestOperatorPausesAndBackfills(t *testing.T) {
	s := startService(t)
	b := startBrowser(t, s.admin)
	signIn(b)
	b.until(`!document.getElementById("plots").hidden && document.querySelectorAll("#plots canvas").length === 3`)
	b.examine("overview-calm")
	b.open("/admin/ui/letters")
	b.reads("There is none.")
	b.examine("letters-empty")

	b.open("/admin/ui/consumers")
	b.examine("consumers")
	b.click("a", "billing")
	b.fill("pause-reason", "a look at the plots")
	b.click("button", "Pause billing")
	b.reads("The consumer is paused")
	b.open("/admin/ui")
	b.reads("billing is paused")
	const canvas = `document.querySelector("#plot-lag canvas").toDataURL()`
	b.until(`document.querySelectorAll("#plots canvas").length === 3`)
	still := value[string](b, canvas)
	for i := range 3 {
		s.signUp(fmt.Sprintf("grace%d@example.com", i))
	}
	const lag = `[...document.querySelectorAll("tbody tr")].find((r) => r.cells[0].textContent === "billing").cells[3].textContent.trim()`
	b.until(lag + ` === "3"`)
	b.until(`fetch("/admin/ui/data/overview.json").then((r) => r.json()).then((d) => d.samples.at(-1).consumers.billing.lag === 3)`)
	b.until(canvas + ` !== ` + fmt.Sprintf("%q", still))
	b.examine("overview-behind")

	b.open("/admin/ui/consumers/billing")
	b.examine("consumer-paused")
	b.click("button", "Resume billing")
	b.reads("The consumer goes on")
	b.reads("Lag\n0")
	b.fill("backfill-reason", "to see it run")
	b.click("button", "Start the backfill")
	b.reads("The backfill has begun")
	b.reads("3 of 3 done")
	b.examine("consumer")
	require.Empty(t, b.complaints())
}

// All that was done above by pointing, done by keys alone.
func TestKeyboardAlone(t *testing.T) {
	s := startService(t)
	b := startBrowser(t, s.admin)
	b.open("/admin/ui")
	b.until(`document.activeElement.id === "token"`)
	b.press(operatorToken + kb.Enter)
	b.until(`location.pathname === "/admin/ui" && document.querySelector("h1") !== null`)

	b.press(kb.Tab)
	require.Equal(t, "Skip to the content", b.focused())
	b.press(kb.Enter)
	b.until(`location.hash === "#main"`)

	// To the audit, by the navigation.
	b.open("/admin/ui")
	for b.focused() != "Audit" {
		b.press(kb.Tab)
		outline := value[string](b, `getComputedStyle(document.activeElement).outlineStyle`)
		require.NotEqual(t, "none", outline, "%s has the focus, and does not show it", b.focused())
	}
	b.press(kb.Enter)
	b.until(`location.pathname === "/admin/ui/audit"`)
	b.reads("Nobody has done anything yet.")

	// A consumer is paused and resumed.
	b.open("/admin/ui/consumers/billing")
	b.tabTo("pause-reason")
	b.press("by hand" + kb.Enter)
	b.reads("The consumer is paused")
	b.tabTo("Resume billing")
	b.press(kb.Enter)
	b.reads("The consumer goes on")
	require.Empty(t, b.complaints())
}

func signIn(b *browser) {
	b.t.Helper()
	b.open("/admin/ui")
	b.fill("token", operatorToken+kb.Enter)
	b.until(`location.pathname === "/admin/ui" && document.querySelector("nav") !== null`)
}

// tabTo presses Tab until something has the focus.
func (b *browser) tabTo(what string) {
	b.t.Helper()
	for range 60 {
		if b.focused() == what {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("no Tab leads to %s", what)
}
