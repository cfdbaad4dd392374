// Package proxy stands between a client and a server on TCP and breaks what passes: it cuts, delays, swallows and loses, on
// demand or by a seeded coin.
//
//	client ──► Proxy ──► target      what a mode does holds at once, for connections that are open too
//
//	mode                  what happens                                       what the client can know
//	CutAll                every open connection is reset                     nothing of what was under way
//	CutListeners          the same, of those that have sent LISTEN           –
//	Refuse                nobody listens on the address                      that nothing was done
//	BlackHole             bytes vanish, both ways; new connections hang      nothing
//	Stall                 bytes wait, both ways, and arrive afterwards       nothing; a COMMIT may come late
//	Slow                  each piece waits, both ways                        –
//	CutInside             a part of what the client sends arrives            nothing
//	CutAnswers            the server gets all of it, the answer is lost      nothing
//	CutAfterCommit        the same, for the answer to a COMMIT               nothing
//	SwallowNotifications  NotificationResponse is dropped                    –
//
// The last two and CutListeners need a proxy for [PostgreSQL], which reads the protocol's messages; the others work for any
// protocol.
//
// Toxiproxy, the usual library for this, does not fit: its toxics see the bytes of one direction and no socket. They can
// reset no connection on demand, tie no two directions together (which connection has sent LISTEN, which answer belongs
// to a request) and take no seed; a change of the target cuts every connection, and stopping waits for no goroutine.
package proxy
