package postgres

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"
)

const (
	// User is the superuser of every private server.
	User = "outbox"
	// Database is created by every start that does not find it.
	Database = "outbox"

	defaultStartTimeout = time.Minute
	defaultStopTimeout  = 15 * time.Second
)

// ErrInUse says that another process owns the data directory.
var ErrInUse = errors.New("another dev is running here")

// Config says what to start. DataDir alone is needed.
type Config struct {
	// DataDir is created when missing and kept between runs; see the package's layout.
	DataDir string

	// BinDir is the folder with initdb and postgres. Empty: see [Find], and a download where that finds nothing.
	BinDir string

	// LogFile takes the server's output. Empty: postgres.log in DataDir.
	LogFile string

	// Port on 127.0.0.1; 0 takes a free one.
	Port int

	// Fsync makes commits durable. Without it a crash of the machine can destroy the data, which suits
	// tests only; a crash of the server alone is survived in both cases.
	Fsync bool

	// Settings override the defaults, as in postgresql.conf. listen_addresses, port, unix_socket_directories
	// and data_directory are this package's own.
	Settings map[string]string

	// StartTimeout bounds initdb, a wait for a predecessor that is still shutting down, crash recovery
	// and the start together. 0 is a minute.
	StartTimeout time.Duration
}

// defaultSettings suit a laptop: they are small, and enough for the pools of a few processes.
func defaultSettings() map[string]string {
	return map[string]string{
		"max_connections":     "200",
		"shared_buffers":      "128MB",
		"max_wal_size":        "1GB",
		"checkpoint_timeout":  "15min",
		"timezone":            "UTC",
		"log_timezone":        "UTC",
		"lc_messages":         "C", // the messages that start.go recognises are English
		"log_line_prefix":     "%m [%p] ",
		"logging_collector":   "off",
		"log_destination":     "stderr",
		"client_min_messages": "warning",
		"tcp_keepalives_idle": "30",
		"autovacuum_naptime":  "10s", // jobs come and go: what they leave in a minute is more than there are at a time
		"wal_compression":     "on",
		"random_page_cost":    "1.1",
		"log_checkpoints":     "off",
		"password_encryption": "scram-sha-256",
	}
}

// arguments are the server's command line. It, not postgresql.conf, carries the settings, so that a
// changed default also reaches a cluster made by an older build.
func (c Config) arguments(cluster string, port int) []string {
	settings := defaultSettings()
	if !c.Fsync {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, c.Settings)
	settings["listen_addresses"] = "127.0.0.1"
	settings["port"] = strconv.Itoa(port)
	settings["unix_socket_directories"] = ""
	delete(settings, "data_directory")

	args := []string{"-D", cluster}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}
