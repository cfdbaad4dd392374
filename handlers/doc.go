// Package handlers is the shop's HTTP: the API for customers, and the operators' listener.
//
// A handler that writes does it in one transaction, which also holds the event that tells of it and the answer kept for
// its Idempotency-Key (idempotency.go): all of them are there, or none. What a request may contain is checked before
// that transaction begins (decode.go); what depends on the state is checked in it. Errors travel up as they are and
// become a problem document in one place (errors.go).
package handlers
