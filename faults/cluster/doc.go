// Package cluster starts what the service stands on, and breaks it: PostgreSQL servers and pairs of them, a pooler, small disks.
//
//   - [Server] is a PostgreSQL server that can be killed, hung and started again on the same port and data.
//   - [Pair] is a primary with a streaming standby that takes its place.
//   - [Pooler] is a PgBouncer in transaction mode.
//   - [Disk] is a file system that can be filled to the last byte; a server's data or its log ([WALOn]) can lie on it.
//
// Everything listens on 127.0.0.1 on a port that stays the same for life, below those that the kernel hands out for outgoing
// connections: a server that is down for a while finds its port free, and a client that calls it meanwhile does not reach itself.
//
// Commits are durable (fsync), so that what a fault loses is the fault's doing.
//
// # What is left behind
//
// Nothing after Close, whatever was done before. When the process that uses the package is killed with -9, the processes that
// it had started, also those that hang, are killed and file systems are unmounted; the folders stay, and with them the servers'
// logs. Linux only: the processes of a server are found in /proc.
//
// # Root
//
// PostgreSQL and PgBouncer refuse to run as root and run as the user postgres then, who has to reach the folders: they must not lie
// below one with mode 0700. File systems are mounted by root alone.
package cluster
