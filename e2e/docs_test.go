package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The page of the document shows what its listener has, tries it out there, fits a phone, and asks nothing of anybody else: the browser
// complains of what the page's policy forbids.
func TestDocs(t *testing.T) {
	s := startService(t)
	for _, listener := range []struct{ base, name, shows, hides, operation, answer string }{
		{s.api, "api", "/v1/signup", "/admin/dlq", "customers/products", `filter-beans`},
		{s.admin, "admin", "/admin/dlq", "/v1/signup", "probes/readyz", `ready`},
	} {
		b := startBrowser(t, listener.base)
		b.width(wide)
		b.open("/docs#/" + listener.operation)
		b.reads(listener.shows)
		require.False(t, value[bool](b, `document.body.innerText.includes("`+listener.hides+`")`))
		// Again, until it is there: a click while the operation is being read is lost.
		b.until(`(() => { (` + byText("button", "Try it out") + ` || document.body).click(); return document.querySelector("button.execute") !== null })()`)
		b.click("button", "Execute")
		b.until(`(document.querySelector(".live-responses-table tr.response") || {innerText: ""}).innerText.includes("` + listener.answer + `")`)
		require.Regexp(t, `^200\s`, value[string](b, `document.querySelector(".live-responses-table tr.response").innerText`))
		for _, width := range []int64{wide, narrow} {
			b.width(width)
			b.picture("docs-" + listener.name + map[int64]string{wide: "-wide", narrow: "-narrow"}[width])
			require.LessOrEqual(t, value[int](b, `document.documentElement.scrollWidth`), int(width), value[[]string](b, `[...document.querySelectorAll("#docs *")]
				.filter((e) => e.getBoundingClientRect().right > innerWidth).slice(0, 5).map((e) => e.tagName + "." + e.className)`))
		}
		require.Empty(t, b.complaints())
	}
}
