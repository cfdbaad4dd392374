package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// searchLimit is how many timelines a page of a search has, where nothing else is asked for, and at most.
const (
	searchLimit    = 10
	maxSearchLimit = 50
)

// Lookup says what to look for when a person types query: the address or the id of a user, a correlation id, an event's id, or a key. It may
// be more than one of these, and then all are looked for.
func Lookup(ctx context.Context, db shopdb.DBTX, query string) (outbox.Search, error) {
	s := outbox.Search{Keys: []string{query}}
	if outbox.ValidCorrelationID(query) {
		s.CorrelationID = query
	}
	var arg shopdb.UserLookupParams
	if id, err := uuid.Parse(query); err == nil {
		arg.ID = &id
	} else if strings.Contains(query, "@") {
		arg.Email = &query
	} else {
		return s, nil
	}
	user, err := shopdb.New().UserLookup(ctx, db, arg)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if arg.ID != nil {
			s.EventIDs = []uuid.UUID{*arg.ID}
		}
		return s, nil
	case err != nil:
		return s, fmt.Errorf("look a user up: %w", err)
	}
	s.EventIDs, s.Keys = user.EventIds, user.Keys
	return s, nil
}

// Searchable reports whether query is something that a search can look for: 1 to 255 bytes of UTF-8 without NUL.
func Searchable(query string) bool {
	return query != "" && len(query) <= 255 && !strings.ContainsRune(query, 0) && utf8.ValidString(query)
}

type searchBody struct {
	Query  string `json:"query"`
	Limit  *int   `json:"limit"`
	Cursor string `json:"cursor"`
}

// search takes what it looks for in its body: an address has no place in a URL, which proxies and logs keep.
func (a *admin) search(c echo.Context) error {
	var body searchBody
	if err := decode(c, &body); err != nil {
		return err
	}
	body.Query = strings.TrimSpace(body.Query)
	limit, before := searchLimit, int64(0)
	switch {
	case !Searchable(body.Query):
		return invalid("/query", "must be an address, a user's id, a correlation id, an event's id or a key, of 1 to 255 bytes of UTF-8 without NUL")
	case body.Limit != nil && (*body.Limit < 1 || *body.Limit > maxSearchLimit):
		return invalid("/limit", fmt.Sprintf("must be 1 to %d", maxSearchLimit))
	case body.Limit != nil:
		limit = *body.Limit
	}
	if body.Cursor != "" {
		var err error
		if before, err = strconv.ParseInt(body.Cursor, 10, 64); err != nil || before < 1 {
			return invalid("/cursor", "must be a next_cursor that a page of this search gave")
		}
	}
	ctx := c.Request().Context()
	what, err := Lookup(ctx, a.pool, body.Query)
	if err != nil {
		return err
	}
	found, err := a.operator.Search(ctx, what, before, limit)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, TimelinePage(found))
}

func (a *admin) event(c echo.Context) error {
	id, err := pathID(c.Param("id"), "event")
	if err != nil {
		return err
	}
	e, err := a.operator.Event(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, e)
}

func (a *admin) trace(c echo.Context) error {
	id := c.Param("correlation_id")
	if !outbox.ValidCorrelationID(id) {
		return notFound("correlation id")
	}
	timeline, err := a.operator.Trace(c.Request().Context(), id)
	if err != nil {
		return adminProblem(err)
	}
	return c.JSON(http.StatusOK, timeline)
}
