// Package e2e walks through the operators' pages as an operator does: a real service, a real browser (chromium, which has to be on the PATH
// or named by E2E_CHROMIUM), and nothing in between. It is a module of its own, so that go test ./... at the root needs no browser.
// Webhooks go to the receiver of the examples, which takes node and npm.
//
// Pictures of every page, for a wide and a narrow screen, in light and dark, are left in shots, or in the folder that E2E_SHOTS names.
package e2e
