package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/handlers/pages"
	"github.com/pgoutbox/pgoutbox/outbox"
)

const (
	// riverJobsAtOnce is how many jobs River's UI names in a request at most.
	riverJobsAtOnce = 1000
	// riverOutcome is how long it may take to note what came of a request, also when its client has left.
	riverOutcome = 2 * time.Second
)

// riverRoutes mounts River's UI. What it can look at is its own matter. What it can change is here one by one: each request is read,
// written to the audit and made anew from what was read, so that nothing is done but what the audit says; and what is not here is not
// handed on, whatever a later version of the UI may think of.
func (a *admin) riverRoutes(e *echo.Echo) {
	e.GET(pages.River, a.riverUI)
	e.GET(pages.River+"/*", a.riverUI)
	for _, action := range []string{"cancel", "delete", "retry"} {
		e.POST(pages.River+"/api/jobs/"+action, func(c echo.Context) error { return a.riverJobs(c, action) })
	}
	for _, action := range []string{"pause", "resume"} {
		e.PUT(pages.River+"/api/queues/:name/"+action, func(c echo.Context) error { return a.riverQueue(c, action) })
	}
	e.PATCH(pages.River+"/api/queues/:name", riverQueueSettings)
}

// riverUI hands on what is only looked at. For what no file's and no row's name can hold, River's UI has no answer but a fault of its own.
func (a *admin) riverUI(c echo.Context) error {
	u := c.Request().URL
	if query, err := url.QueryUnescape(u.RawQuery); err != nil || !readable(u.Path) || !readable(query) {
		return notFound("page")
	}
	a.serveRiver(c, c.Request())
	return nil
}

// serveRiver lets River's UI end what it has begun, also when its client leaves: it would say that something of its own broke.
func (a *admin) serveRiver(c echo.Context, r *http.Request) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), queryTimeout)
	defer cancel()
	a.river.ServeHTTP(c.Response(), r.WithContext(ctx))
}

func readable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// riverJobs cancels, deletes or retries jobs. What the engine loses by that it takes up again: see docs/observability.md.
func (a *admin) riverJobs(c echo.Context, action string) error {
	ids, err := riverJobIDs(c)
	if err != nil {
		return err
	}
	entry, err := a.operator.RecordJobs(c.Request().Context(), action, ids, outbox.Action{Actor: pages.Actor(c)})
	if err != nil {
		return notAudited(err)
	}
	return a.handOn(c, entry, "/api/jobs/"+action, map[string]any{"ids": ids})
}

// riverJobIDs are the jobs in the body, as the UI names them: by numbers in strings, and with no type of content.
func riverJobIDs(c echo.Context) ([]int64, error) {
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	var in struct {
		IDs json.RawMessage `json:"ids"`
	}
	if err := bind(body, &in); err != nil {
		return nil, err
	}
	var given []json.RawMessage
	if err := json.Unmarshal(in.IDs, &given); err != nil || len(given) == 0 || len(given) > riverJobsAtOnce {
		return nil, invalid("/ids", "must be a list of 1 to "+strconv.Itoa(riverJobsAtOnce)+" jobs' numbers")
	}
	ids := make([]int64, len(given))
	for i, raw := range given {
		id, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
		if err != nil || id < 1 {
			return nil, invalid("/ids/"+strconv.Itoa(i), "must be a job's number")
		}
		ids[i] = id
	}
	return ids, nil
}

// riverQueue pauses or resumes a queue that is not the engine's. Of its own, a pause of the relay's would stop everything for everybody, unseen
// by all that watches consumers, and one of a consumer's nobody would find in the consumer's state.
func (a *admin) riverQueue(c echo.Context, action string) error {
	name, err := riverQueueName(c)
	if err != nil || !readable(name) || len(name) > 255 {
		return notFound("queue")
	}
	instead := ""
	switch {
	case name == "*":
		instead = "all queues at once are nobody's to " + action + ": " + action + " consumers, one by one"
	case name == outbox.RelayQueue && action == "resume": // it was paused elsewhere, and nothing but this can undo that
	case name == outbox.RelayQueue:
		instead = "the relay works for all consumers: pause the consumer that is to stop, at POST /admin/consumers/{name}/pause or on the page Consumers"
	case strings.HasPrefix(name, outbox.DrainQueue("")), strings.HasPrefix(name, outbox.DeliverQueue("")):
		instead = "a consumer has two queues, and a state of its own: " + action + " the consumer, at POST /admin/consumers/{name}/" + action +
			" or on the page Consumers"
	}
	if instead != "" {
		return conflictProblem("engine-queue", instead)
	}
	entry, err := a.operator.RecordQueue(c.Request().Context(), action, name, outbox.Action{Actor: pages.Actor(c)})
	if err != nil {
		return notAudited(err)
	}
	return a.handOn(c, entry, "/api/queues/"+url.PathEscape(name)+"/"+action, nil)
}

// riverQueueName is the name in the path. The router leaves it as it is written, where that is not the usual way; River's reads it.
func riverQueueName(c echo.Context) (string, error) {
	if c.Request().URL.RawPath == "" {
		return c.Param("name"), nil
	}
	return url.PathUnescape(c.Param("name"))
}

// riverQueueSettings refuses what only another edition of River heeds.
func riverQueueSettings(echo.Context) error {
	return conflictProblem("engine-queue", "the concurrency of a queue is set in the code: outbox.Concurrency")
}

// handOn lets River's UI do what the audit's entry says, and notes whether it did.
func (a *admin) handOn(c echo.Context, entry int64, path string, body any) error {
	r := c.Request().Clone(c.Request().Context())
	u, err := url.Parse(pages.River + path)
	if err != nil {
		return fmt.Errorf("make the path of %s: %w", path, err)
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("make the body of %s: %w", path, err)
	}
	if body == nil {
		encoded = nil
	}
	r.URL, r.Body, r.ContentLength = u, io.NopCloser(bytes.NewReader(encoded)), int64(len(encoded))
	a.serveRiver(c, r)

	outcome := "done"
	if status := c.Response().Status; status >= 300 {
		outcome = "not done: answered with " + strconv.Itoa(status)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), riverOutcome)
	defer cancel()
	return a.operator.RecordOutcome(ctx, entry, outcome)
}

// notAudited is for what is not done because nobody would know who did it.
func notAudited(err error) error {
	p := unavailable("the audit could not be written; nothing was done")
	p.cause = err
	return p
}

// riverProblem gives the guard's refusals their form.
func riverProblem(err error) error {
	switch {
	case errors.Is(err, pages.ErrSignedOut):
		p := unauthenticated("the session is over: sign in at " + pages.Root + "/login")
		p.header = nil // no bearer is of use here
		return p
	case errors.Is(err, pages.ErrOtherSite):
		return &problem{
			status: http.StatusForbidden, slug: "other-site", title: "The request came from another site",
			detail: "it has to be sent from River's UI itself; nothing was done",
		}
	}
	return err
}
