package main

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"riverqueue.com/riverui"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/internal/quiet"
	"github.com/pgoutbox/pgoutbox/workers"
)

// newRiverUI returns River's own UI for the admin listener. It looks after jobs in the database, so that each process can have it, and says
// nothing to the workers but by that.
//
// It is not started: what that begins counts all jobs every ten seconds in each process, whether somebody looks or not. Without it each page
// counts when it asks; of a state with more than 10,000 jobs it then shows the planner's estimate.
func newRiverUI(pool *pgxpool.Pool, log *slog.Logger) (http.Handler, error) {
	client, err := workers.NewClient(pool, "")
	if err != nil {
		return nil, err
	}
	ui, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints: riverui.NewEndpoints(client, nil), Logger: slog.New(quiet.Warnings(log.Handler())), Prefix: pages.River,
	})
	if err != nil {
		return nil, fmt.Errorf("make River's UI: %w", err)
	}
	return ui, nil
}
