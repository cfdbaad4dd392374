// Command outbox is the pgoutbox service in one binary: the shop's API, the workers behind it, and the tools to run them.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands are the command line. Each field's Run method is the command; what they share is bound in run.
type commands struct {
	Dev         devCommand         `cmd:"" help:"Everything, on a private PostgreSQL that is started here. The way to try it."`
	Serve       serveCommand       `cmd:"" help:"API and workers on DATABASE_URL."`
	Migrate     migrateCommand     `cmd:"" help:"Bring the database's schema up or down, or show where it is."`
	Check       checkCommand       `cmd:"" help:"Prove that every event is in exactly one place for each consumer; exit 1 and the list where not, 2 where that could not be found out."`
	Trace       traceCommand       `cmd:"" help:"The timeline of one correlation id: every event, what became of it at each consumer, and what has not happened yet."`
	Search      searchCommand      `cmd:"" help:"Timelines by a user's address or id, a correlation id, an event's id or a key; exit 1 where nothing is found."`
	Events      eventsCommand      `cmd:"" help:"One event and what became of it at each consumer."`
	DLQ         dlqCommand         `cmd:"" name:"dlq" help:"Look at the dead letters; group, rehearse, replay, redact and dismiss them."`
	Operations  operationsCommand  `cmd:"" help:"Look at replays of many letters, and stop them."`
	Audit       auditCommand       `cmd:"" help:"What operators did, to what and why."`
	Consumers   consumersCommand   `cmd:"" help:"Look at the consumers; pause, backfill, remove them."`
	Webhooks    webhooksCommand    `cmd:"" help:"Endpoints of others, to which events are sent: look at them; add, change, test, disable and remove them, and send again."`
	Backfills   backfillsCommand   `cmd:"" help:"Look at backfills, and stop them."`
	Stats       statsCommand       `cmd:"" help:"How the whole is doing: the relay, the outbox, each consumer and the jobs."`
	Load        loadCommand        `cmd:"" help:"Load a running service with customers, and print how fast it is: what it writes, and from commit to effect."`
	Healthcheck healthcheckCommand `cmd:"" help:"Ask the running service whether it is ready, for container probes."`

	Version kong.VersionFlag `help:"Print the version and exit."`
}

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal stops in order; a second one, by its default action, at once.
	context.AfterFunc(ctx, stop)

	var cli commands
	parser, err := newParser(ctx, &cli)
	if err != nil {
		complain(os.Stderr, err)
		return exitUsage
	}
	command, err := parser.Parse(args)
	if err != nil {
		parser.Errorf("%s", printable(err.Error()))
		return exitUsage
	}
	if err := command.Run(); err != nil {
		complain(os.Stderr, err)
		var exit exitError
		if errors.As(err, &exit) {
			return exit.code
		}
		return exitFailed
	}
	return 0
}

// newParser reads a command line into cli.
func newParser(ctx context.Context, cli *commands, more ...kong.Option) (*kong.Kong, error) {
	return kong.New(cli, append([]kong.Option{
		kong.Name("outbox"),
		kong.Description("A transactional outbox service on Postgres alone. All configuration is by environment: see the README."),
		kong.Vars{"version": version()},
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.UsageOnError(),
	}, more...)...)
}
