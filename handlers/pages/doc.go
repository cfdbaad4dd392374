// Package pages is what operators see at /admin/ui: the overview, dead letters, timelines, consumers and the audit, as HTML.
//
// Every page is whole without JavaScript: plain links, and forms that answer with a redirect. With it, htmx asks again for the part of
// a page that changes, and uPlot draws what the overview's table says in numbers. All of it is served by the binary, from paths that
// name their content, and nothing of a page is inline, so that the policy in guard.go can forbid all else.
//
// A session is a signed cookie (session.go); a bearer token opens no page, and the cookie nothing but pages. Addresses stand in no
// URL, and an event's data on no page but that of its letter and its own.
package pages
