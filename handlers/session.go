package handlers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"

	"github.com/pgoutbox/pgoutbox/internal/ratelimit"
	"github.com/pgoutbox/pgoutbox/internal/shopdb"
)

const (
	tokenBytes  = 32
	sessionDays = 30
)

type loginRequest struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

type loginAnswer struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// logIn answers the same, in the same time, for an address without an account and for a wrong password.
func (a *api) logIn(c echo.Context) error {
	var in loginRequest
	if err := decode(c, &in); err != nil {
		return err
	}
	var v collector
	v.required("/email", in.Email)
	v.required("/password", in.Password)
	if err := v.problem(); err != nil {
		return err
	}
	email := strings.TrimSpace(in.Email)
	// The same for an address without an account. The pair comes first: what it refuses does not use up what the owner has elsewhere.
	account := strings.ToLower(email)
	if err := a.count(c, ratelimit.Of{Route: ratelimit.Login, Kind: ratelimit.Pair}, account+" "+network(c)); err != nil {
		return err
	}
	if err := a.count(c, ratelimit.Of{Route: ratelimit.Login, Kind: ratelimit.Account}, account); err != nil {
		return err
	}
	var user shopdb.UserCredentialsRow // of nobody: no hash
	err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
		user, err = a.queries.UserCredentials(ctx, conn, email)
		return err
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("find the account: %w", err)
	}
	ok, better, err := a.passwords.match(c.Request().Context(), in.Password, user.PasswordHash)
	if err != nil {
		return err
	}
	if !ok {
		return unauthenticated("there is no account with this email address and password")
	}
	token := make([]byte, tokenBytes)
	_, _ = rand.Read(token) // it never fails
	out := loginAnswer{Token: tokenEncoding.EncodeToString(token)}
	err = a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
		if better != "" {
			err = a.queries.UserRehash(ctx, conn, shopdb.UserRehashParams{ID: user.ID, OldHash: user.PasswordHash, NewHash: better})
			if err != nil {
				return err
			}
		}
		out.ExpiresAt, err = a.queries.SessionCreate(ctx, conn, shopdb.SessionCreateParams{
			TokenHash: hashToken(out.Token), UserID: user.ID, Days: sessionDays,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("create a session: %w", err)
	}
	out.ExpiresAt = out.ExpiresAt.UTC()
	return c.JSON(http.StatusCreated, out)
}

func (a *api) logOut(c echo.Context, _ uuid.UUID) error {
	token, _ := bearer(c.Request().Header)
	err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) error {
		return a.queries.SessionDelete(ctx, conn, hashToken(token))
	})
	if err != nil {
		return fmt.Errorf("delete the session: %w", err)
	}
	return c.NoContent(http.StatusNoContent)
}

// asUser lets a request with a valid session through.
func (a *api) asUser(next func(c echo.Context, user uuid.UUID) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		token, ok := bearer(c.Request().Header)
		if !ok {
			return unauthenticated("the header Authorization must be Bearer and a token from POST /v1/sessions")
		}
		var user uuid.UUID
		err := a.withConn(c, func(ctx context.Context, conn *pgxpool.Conn) (err error) {
			user, err = a.queries.SessionUser(ctx, conn, hashToken(token))
			return err
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return unauthenticated("the session does not exist, or has ended")
		}
		if err != nil {
			return fmt.Errorf("find the session: %w", err)
		}
		return next(c, user)
	}
}

// A token has one spelling: what a lenient reader would take as the same is another token.
var tokenEncoding = base64.RawURLEncoding.Strict()

// hashToken is how a token is stored. It is random through and through, so that a plain hash hides it.
func hashToken(token string) []byte {
	hash := sha256.Sum256([]byte(token))
	return hash[:]
}

// bearer is the token in the header Authorization, when it can be one of ours.
func bearer(header http.Header) (token string, ok bool) {
	scheme, token, _ := strings.Cut(header.Get(echo.HeaderAuthorization), " ")
	token = strings.TrimSpace(token)
	decoded, err := tokenEncoding.DecodeString(token)
	return token, strings.EqualFold(scheme, "Bearer") && err == nil && len(decoded) == tokenBytes
}
