package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
	"github.com/pgoutbox/pgoutbox/outbox"
)

// trialPlan is what every account begins with.
const trialPlan = "trial"

type signupRequest struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Name     string `json:"name"`
}

type signupAnswer struct {
	UserID        uuid.UUID `json:"user_id"`
	EventID       uuid.UUID `json:"event_id"`
	CorrelationID string    `json:"correlation_id"`
	Status        string    `json:"status"`
}

// signUp does not start the trial: it records that somebody signed up, and says that the account is being set up.
func (a *api) signUp(c echo.Context) error {
	var in signupRequest
	body, err := decodeBody(c, &in)
	if err != nil {
		return err
	}
	var v collector
	email := v.email("/email", in.Email)
	v.password("/password", in.Password, email, in.Name)
	name := v.name("/name", in.Name)
	if err := v.problem(); err != nil {
		return err
	}
	if _, err := idempotencyKey(c.Request().Header); err != nil {
		return err // before the work of hashing
	}
	hash, err := a.passwords.hash(c.Request().Context(), in.Password)
	if err != nil {
		return err
	}
	return a.write(c, write{body: body, work: func(ctx context.Context, tx pgx.Tx) (int, any, error) {
		userID := newID()
		eventID, err := outbox.Append(ctx, tx, outbox.Event{
			Type: shop.UserSignedUp, Key: userID.String(), Data: shop.SignedUp{UserID: userID, Plan: trialPlan},
		})
		if err != nil {
			return 0, nil, err
		}
		err = a.queries.UserCreate(ctx, tx, shopdb.UserCreateParams{
			ID: userID, Email: email, Name: name, PasswordHash: hash, SignupEventID: eventID,
		})
		if emailTaken(err) {
			p := conflictProblem("email-taken", "there is an account with this email address")
			p.errs = []fieldError{{"/email", "is taken"}}
			return 0, nil, p
		}
		if err != nil {
			return 0, nil, fmt.Errorf("create a user: %w", err)
		}
		return http.StatusCreated, signupAnswer{userID, eventID, outbox.CorrelationID(ctx), planSettingUp}, nil
	}})
}

func emailTaken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.ConstraintName == "users_email_key"
}
