// Package postgres runs a private PostgreSQL server as a child of this process, for the dev command
// and for the tests. It is no way to run PostgreSQL in production.
//
// What it guarantees:
//
//   - Only this machine can reach the server (127.0.0.1, no unix socket), and only with the password
//     that was drawn for it and lies beside the data, readable by nobody else.
//   - The data is kept between runs. A run that was killed at any moment, in the middle of initdb too,
//     is recovered from by the next one.
//   - The server does not outlive the process that started it, not even after kill -9.
//   - One owner at a time: a second start on the same directory fails with [ErrInUse].
//
// # Layout
//
// Everything lies in [Config].DataDir:
//
//	cluster/       PostgreSQL's own data directory; appears by rename, so it is whole or not there
//	cluster.new/   an initdb at work, or one that was interrupted; the next start removes it
//	password       of the superuser "outbox", mode 0600
//	lock           flock'ed by the owner as long as it lives
//	started.pid    the postmaster that the last owner started
//	postgres.log   what the server says, unless Config.LogFile names another file
//
// # Root
//
// PostgreSQL refuses to run as root. Started by root, the server runs as the user that owns the
// cluster, or for a new one as "postgres", else "nobody". That user has to reach the directory. Where a
// parent is closed to it (root's home is 0700), the contents are kept in a directory of their own under
// /var/lib/pgoutbox, or the system's temporary folder where that cannot be written, and DataDir becomes
// a symbolic link to it. Removing the link therefore frees no space; [Remove] removes both.
//
// # Without PostgreSQL
//
// Where no binaries are installed they are downloaded once into the user's cache folder. That does not
// work for root, nor without a network: then one error names the ways on.
package postgres
