package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

//go:embed testdata/axe.min.js
var axe string

const (
	wide, narrow = 1280, 360
	patience     = 30 * time.Second
)

// browser is a headless chromium with one tab.
type browser struct {
	t     *testing.T
	ctx   context.Context
	base  string
	shots string

	mu       sync.Mutex
	problems []string // what the browser complained of: errors, what the pages' policy forbade, and that it was to ask other servers
}

func startBrowser(t *testing.T, base string) *browser {
	t.Helper()
	shots := os.Getenv("E2E_SHOTS")
	if shots == "" {
		shots = "shots"
	}
	require.NoError(t, os.MkdirAll(shots, 0o755))
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(wide, 900))
	if path := os.Getenv("E2E_CHROMIUM"); path != "" {
		options = append(options, chromedp.ExecPath(path))
	}
	b := &browser{t: t, base: base, shots: shots}
	// Not the test's own context, which ends before its cleanups do.
	allocated, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(allocated, chromedp.WithListener(func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.complain(fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception))
		case *network.EventRequestWillBeSent:
			if url := e.Request.URL; strings.HasPrefix(url, "http") && !strings.HasPrefix(url, base+"/") {
				b.complain("it asks elsewhere: " + url)
			}
		case *cdplog.EventEntryAdded:
			// A page that is refused on purpose is logged as a failed resource.
			if e.Entry.Level == cdplog.EntryLevelError && e.Entry.Source != cdplog.EntrySourceNetwork {
				b.complain(fmt.Sprint(e.Entry.Source, ": ", e.Entry.Text))
			}
		}
	}))
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(b.ctx)) // the browser lives as long as the context of its first call
	return b
}

func (b *browser) complain(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, what)
}

// complaints are what the browser had to complain of so far.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string{}, b.problems...)
}

// do does one thing after the other, and fails with a picture of the page where one does not come to pass.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.fail(err.Error())
	}
}

func (b *browser) fail(why string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	page, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	b.picture("failed")
	b.t.Fatalf("%s\n%s\n%v", why, page, b.complaints())
}

func (b *browser) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.base + path))
}

// until waits until an expression of JavaScript is true, over as many pages as it takes.
func (b *browser) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// An error is a page that is just going away.
		if is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression, chromedp.EvalAwaitPromise)); err == nil && is {
			return
		}
		select {
		case <-ctx.Done():
			b.fail("never: " + expression)
		case <-tick.C:
		}
	}
}

// reads waits until the text stands on the page.
func (b *browser) reads(text string) {
	b.t.Helper()
	quoted, err := json.Marshal(text)
	require.NoError(b.t, err)
	b.until(`document.body.innerText.includes(` + string(quoted) + `)`)
}

func value[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.fail(expression[:min(len(expression), 200)] + ": " + err.Error())
	}
	return v
}

// command sends one of the protocol's, which answers nothing.
func command[P any](b *browser, c cdp.Command[P, cdp.Empty], params P) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, params)
		return err
	}))
}

func (b *browser) scheme(name string) {
	b.t.Helper()
	command(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

func (b *browser) width(pixels int64) {
	b.t.Helper()
	command(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: pixels, Height: 900, DeviceScaleFactor: 1, Mobile: pixels == narrow,
	})
}

func (b *browser) picture(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Log("no picture: ", err)
		return
	}
	require.NoError(b.t, os.WriteFile(filepath.Join(b.shots, name+".png"), png, 0o644))
}

// examine looks at the page as it is: in light and dark and on a narrow screen, with axe-core, and leaves pictures.
func (b *browser) examine(name string) {
	b.t.Helper()
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		for _, width := range []int64{wide, narrow} {
			b.width(width)
			b.axe(name + ", " + scheme)
			require.LessOrEqual(b.t, value[int](b, `document.documentElement.scrollWidth`), int(width), "%s is wider than the screen of %d", name, width)
			b.picture(fmt.Sprintf("%s-%s-%d", name, scheme, width))
		}
	}
	b.scheme("light")
	b.width(wide)
}

// axe finds nothing serious.
func (b *browser) axe(where string) {
	b.t.Helper()
	type finding struct {
		ID, Impact, Help string
		Nodes            []string
	}
	found := value[[]finding](b, axe+`;axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations.map((v) => (
		{ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary)})))`)
	for _, f := range found {
		if f.Impact == "serious" || f.Impact == "critical" {
			b.t.Errorf("%s: %s (%s): %s\n%s", where, f.ID, f.Impact, f.Help, strings.Join(f.Nodes, "\n"))
		} else {
			b.t.Logf("%s: %s (%s): %s", where, f.ID, f.Impact, f.Nodes)
		}
	}
}

// focused is what has the focus, by its id, name or text.
func (b *browser) focused() string {
	b.t.Helper()
	return value[string](b, `(() => { const e = document.activeElement; return e.id || e.name || e.textContent.trim() })()`)
}

// press sends keys to whatever has the focus.
func (b *browser) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// byText is the first element that the selector finds with the text.
func byText(selector, text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].find((e) => e.textContent.includes(%q))`, selector, text)
}

// click clicks on the first element that the selector finds with the text, once it is there.
func (b *browser) click(selector, text string) {
	b.t.Helper()
	b.until(byText(selector, text) + ` !== undefined`)
	value[bool](b, `(() => { `+byText(selector, text)+`.click(); return true })()`)
}

// fill types a text in the place of what stands in a field.
func (b *browser) fill(id, text string) {
	b.t.Helper()
	b.until(`document.getElementById("` + id + `") !== null`)
	value[bool](b, `(() => { const e = document.getElementById("`+id+`"); e.value = ""; e.focus(); return true })()`)
	b.press(text)
}
