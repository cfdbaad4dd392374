// Package outside holds judges that live outside of the database and of the service: what they were told has happened, whatever
// the service believes of it, and whatever became of the answer.
//
//   - [Payments] is a Stripe. Its ledger tells how often each order was charged.
//   - [Ledger] is a receiver of notes. It tells what arrived, in order, and what of it came twice.
//
// Each keeps a file to which everything is written and synced before it is answered. Each can be told to break ([Faults]).
//
// A client of net/http sends a request with an Idempotency-Key again by itself when a connection that it has used before is
// closed under it; so one call of a client can reach a judge twice.
package outside
