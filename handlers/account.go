package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/shop"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

// The plan's statuses.
const (
	planSettingUp = "setting_up"
	planTrialing  = "trialing"
	planExpired   = "expired"
	planDelayed   = "delayed"
)

// planPatience is how long the setting up of an account may take before it is called delayed.
const planPatience = 60 * time.Second

type accountAnswer struct {
	User         userView `json:"user"`
	Plan         planView `json:"plan"`
	WelcomeEmail mailView `json:"welcome_email"`
}

type userView struct {
	UserID    uuid.UUID `json:"user_id"`
	Email     string    `json:"email"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

type planView struct {
	Status      string     `json:"status"`
	TrialEndsAt *time.Time `json:"trial_ends_at"`
	Message     string     `json:"message"`
}

type mailView struct {
	Status string `json:"status"`
}

func (a *api) account(c echo.Context, user uuid.UUID) error {
	row, err := await(c, a.pool, awaited[shopdb.UserAccountRow]{
		load: func() (row shopdb.UserAccountRow, err error) {
			err = a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
				row, err = a.queries.UserAccount(ctx, conn, shopdb.UserAccountParams{ID: user, PatienceSeconds: planPatience.Seconds()})
				return err
			})
			return row, err
		},
		settled: func(row shopdb.UserAccountRow) bool {
			return row.PlanStatus == planTrialing || row.PlanStatus == planExpired
		},
		event: func(row shopdb.UserAccountRow) uuid.UUID { return row.SignupEventID }, consumer: shop.Billing,
		states: a.plans, id: user,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return unauthenticated("the account does not exist any more")
	}
	if err != nil {
		return fmt.Errorf("read the account: %w", err)
	}
	out := accountAnswer{
		User:         userView{user, row.Email, row.Name, row.CreatedAt.UTC()},
		Plan:         planView{Status: row.PlanStatus, Message: planMessage(row)},
		WelcomeEmail: mailView{"pending"},
	}
	if row.TrialEndsAt != nil {
		ends := row.TrialEndsAt.UTC()
		out.Plan.TrialEndsAt = &ends
	}
	if row.WelcomeSent {
		out.WelcomeEmail.Status = "sent"
	}
	return c.JSON(http.StatusOK, out)
}

// planMessage is what a page can show as it is.
func planMessage(row shopdb.UserAccountRow) string {
	switch row.PlanStatus {
	case planTrialing:
		return "Your trial runs until " + row.TrialEndsAt.UTC().Format("2 January 2006") + "."
	case planExpired:
		return "Your trial has ended."
	case planDelayed:
		return "Setting up your account takes longer than usual. You need not do anything: it will be ready by itself."
	default:
		return "Setting up your account…"
	}
}
