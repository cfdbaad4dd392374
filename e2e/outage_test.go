package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	signups = 500
	// rateOf is the greatest rate of the consumer of welcome mails on the plots.
	rateOf = `fetch("/admin/ui/data/overview.json").then((r) => r.json()).then((d) => Math.max(...d.samples.map((s) => s.consumers["welcome-email"].rate ?? 0)))`
)

// The mail server is away while five hundred people sign up. Their letters have one cause; a replay with a canary stops by itself as long as
// it is away, and mends all when it is back: one mail for each of them, as often as it was tried.
func TestOperatorMendsAnOutageOfTheMailServer(t *testing.T) {
	mail := newMailServer(t)
	s := startService(t, "SMTP_URL="+mail.url(), "OUTBOX_MAX_ATTEMPTS=2", "OUTBOX_RETRY_BASE=200ms")
	b := startBrowser(t, s.admin)
	signIn(b)
	b.until(`document.querySelectorAll("#plots canvas").length === 3`)
	const rates = `document.querySelector("#plot-rate canvas").toDataURL()`
	still := value[string](b, rates)

	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for n := worker; n < signups; n += 4 {
				s.signUp(fmt.Sprintf("user%03d@example.com", n))
			}
		})
	}
	all.Wait()
	b.reads("500 dead letters hold their keys")
	b.until(rates + ` !== ` + fmt.Sprintf("%q", still)) // of those who began their trial
	require.Zero(t, value[float64](b, rateOf), "nobody got a mail")
	b.examine("outage")

	// One cause, which leads to its letters.
	require.Equal(t, 1, value[int](b, `document.querySelectorAll(".causes li").length`))
	cause := value[string](b, `document.querySelector(".causes li").innerText`)
	require.Contains(t, cause, "500")
	require.Contains(t, cause, "refused")
	b.click(".causes a", "refused")
	b.reads("Only those of one cause.")
	b.examine("outage-letters")

	// It is not back yet: the canary says so, and nothing else is tried.
	sendAll(b, "is it back?")
	b.reads("1 of 1 groups failed again")
	require.Equal(t, "1 of 500", value[string](b, `document.querySelector("progress").parentElement.innerText.trim()`))
	b.examine("outage-canary")

	mail.start()
	b.open("/admin/ui/letters")
	b.click("th a", "refused")
	b.reads("Only those of one cause.")
	sendAll(b, "the mail server is back")
	b.reads("All letters were dealt with.")
	b.reads("500 of 500")
	b.examine("outage-mended")

	b.open("/admin/ui")
	b.reads("Nothing needs you")
	b.until(`document.querySelectorAll("#plots canvas").length === 3`)
	b.until(rateOf + `.then((rate) => rate > 10)`)
	b.examine("outage-over")

	ids, addresses := map[string]bool{}, map[string]bool{}
	for _, m := range mail.sink.Messages() {
		ids[m.MessageID] = true
		addresses[strings.Join(m.To, ",")] = true
	}
	require.Len(t, addresses, signups)
	require.Len(t, ids, signups, "one Message-ID for each")
	require.Empty(t, b.complaints())
}

// sendAll replays the letters that the page shows, as fast as they go, with a canary.
func sendAll(b *browser, reason string) {
	b.t.Helper()
	b.click("summary", "How fast, and why")
	b.fill("bulk-reason", reason)
	b.fill("rate", "1000")
	require.True(b.t, value[bool](b, `document.getElementById("canary").checked`))
	b.click("button", "Replay all that fit")
	b.until(`location.pathname.startsWith("/admin/ui/operations/")`)
}
