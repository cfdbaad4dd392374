package pages_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/html"
)

// checkPage checks what the policy forbids and what a page owes to those who do not see it.
func checkPage(t testing.TB, root *html.Node) {
	t.Helper()
	ids, headings, mains := map[string]int{}, 0, 0
	labels := map[string]bool{}
	var fields []*html.Node
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		for _, a := range n.Attr {
			require.False(t, a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Key, "data-hx-on"),
				"<%s> has an inline %s", n.Data, a.Key)
		}
		if id := attr(n, "id"); id != "" {
			ids[id]++
			require.Equal(t, 1, ids[id], "the id %s is there more than once", id)
		}
		switch n.Data {
		case "script":
			require.True(t, strings.HasPrefix(attr(n, "src"), "/admin/ui/static/"), "an inline script")
		case "style":
			t.Error("an inline style")
		case "link":
			require.True(t, strings.HasPrefix(attr(n, "href"), "/admin/ui/static/"))
		case "h1":
			headings++
		case "main":
			mains++
		case "label":
			labels[attr(n, "for")] = true
		case "input", "select", "textarea":
			if attr(n, "type") != "hidden" {
				fields = append(fields, n)
			}
		case "table":
			require.NotNil(t, find(n, "caption", ""), "a table without a caption")
		case "th":
			require.NotEmpty(t, attr(n, "scope"), "a header of a table that does not say of what")
		case "progress", "nav":
			require.NotEmpty(t, attr(n, "aria-label"))
		case "form":
			method := attr(n, "method")
			require.True(t, method == "post" || method == "get", "a form that does not say how it is sent")
			require.True(t, strings.HasPrefix(attr(n, "action"), "/admin/ui"))
		}
	}
	require.Equal(t, 1, headings, "a page has one heading of the first order")
	require.Equal(t, 1, mains)
	for _, f := range fields {
		require.True(t, labels[attr(f, "id")], "the field %s has no label", attr(f, "name"))
	}
	for n := range root.Descendants() {
		for _, by := range []string{"aria-labelledby", "aria-describedby"} {
			for _, id := range strings.Fields(attr(n, by)) {
				require.Equal(t, 1, ids[id], "%s leads to %s, which is not there", by, id)
			}
		}
	}
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// find is the first element of a kind in n that has the text.
func find(n *html.Node, element, has string) *html.Node {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == element && strings.Contains(text(d), has) {
			return d
		}
	}
	return nil
}

// text is what an element reads, with one blank for any space.
func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data + " ")
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}
