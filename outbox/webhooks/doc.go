// Package webhooks sends events to HTTP endpoints that operators name while the service runs, so that services react that share neither its code
// nor its database.
//
// # An endpoint is a consumer
//
// Each one is an external, ordered consumer named webhook-<name>, of its own: a dead endpoint holds up nobody else, and lag, holds, dead
// letters, pause, backfill, timelines and metrics are as of any other. Workers take the consumers from Store.Consumers
// (workers.Config.Consumers). URL and secrets are read at each delivery, so that a change holds at once, in every process.
//
//	store := webhooks.New(pool, operator, "", webhooks.Options{Source: "https://shop.example/events"})
//	w, err := workers.New(pool, reg, workers.Config{Consumers: store.Consumers})
//	…
//	endpoint, secret, err := store.Create(ctx, webhooks.NewEndpoint{
//		Name: "crm", URL: "https://crm.example/hooks", Types: []string{"user.*"},
//	}, outbox.Action{Actor: "anna"})
//
// # What is sent
//
// A POST of the event as CloudEvents 1.0 in JSON (application/cloudevents+json), signed by the rules of Standard Webhooks: webhook-id is the
// event's id, webhook-timestamp the time of sending in Unix seconds, and webhook-signature has a "v1," signature by the endpoint's secret and,
// for OldSecretFor after Rotate, one by the secret before. The event's key is its subject and its partitionkey, its position in the log its
// sequence, a text that sorts; correlationid, causationid, schemaversion and traceparent are extensions, too. Data is what the log holds: no
// upcaster touches it.
//
// # What is promised
//
// At least once, and in order per key: the next event of a key goes when the one before was taken. An event whose answer was lost comes again,
// with the same webhook-id: receivers deduplicate by that. A replay (Store.Replay) sends the same ids, too.
//
// A status of 2xx means taken; what the body says does not matter. Anything else is a failure that is tried again, 25 times over about four
// days, and then a dead letter; redirects are not followed. Where 429, 502, 503 or 504 come with Retry-After, the next attempt waits for that,
// up to an hour, and no attempt is spent, the first 25 times. 410 disables the endpoint.
//
// # Disabling
//
// An endpoint to which nothing has got through for Options.DisableAfter is disabled: its consumer is paused, a line is logged at level error
// and another left in the audit. Its events wait for Enable, and the log keeps them beyond its retention meanwhile: enable it or remove it.
//
// # Where it sends to
//
// Whoever may make endpoints has the service send requests. So addresses are checked when they are dialled, after names are resolved:
// none that is private, of a loopback, link-local or otherwise special by IANA's registries (RFC 6890), nor such wrapped in IPv6, unless
// Options.Networks has it. Plain http:// goes to Options.Networks alone. No proxy is asked, whatever the environment says, no
// redirect is followed, and of an answer little is read. Logs, spans, errors and dead letters have classes of failure in words of this
// package: no URL, no secret, and no text that an endpoint has sent.
package webhooks
