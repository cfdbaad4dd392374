// Package outboxtest runs an outbox inside a test until all is quiet.
//
//	func TestSignup(t *testing.T) {
//		pool := …                                  // a migrated database of the test's own
//		require.NoError(t, signUp(ctx, pool, "ada@example.com"))
//		report := outboxtest.Settle(t, pool, consumers())
//		require.Empty(t, report.Dead)
//		…                                          // what the consumers did is in the database now
//	}
//
// [Settle] runs the real relay, drains and deliveries, those of package workers, and stops them before it returns: what a test
// sees is what the program will do, but for the waits between attempts, which are milliseconds.
//
// It may be called several times in a test, with events appended in between, and in parallel tests, each with a database
// of its own. Two that share a database would work off each other's events.
package outboxtest
