package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// load is a shop full of customers. Safe for concurrent use.
type load struct {
	url  string
	run  string // tells the customers of one load from those of another
	sku  string
	http *http.Client

	mu                     sync.Mutex
	wrote, toTrial, toPaid []time.Duration
	refused                int
	failed                 map[string]int
}

// prepare asks whether the service may be loaded, and what there is to buy.
func (l *load) prepare(ctx context.Context, force bool) error {
	if err := l.send(ctx, http.MethodGet, "/dev/mail", "", nil, nil); err != nil {
		var wrong *answerError
		if !errors.As(err, &wrong) {
			return fmt.Errorf("ask %s: %w", l.url, err)
		}
		if !force {
			return fmt.Errorf("%s is not outbox dev: mail would be sent there, and orders charged; --force if that is meant", l.url)
		}
	}
	var catalogue struct {
		Items []struct {
			SKU string `json:"sku"`
		} `json:"items"`
	}
	if err := l.send(ctx, http.MethodGet, "/v1/products", "", nil, &catalogue); err != nil {
		return fmt.Errorf("read the catalogue: %w", err)
	}
	if len(catalogue.Items) == 0 {
		return errors.New("there is nothing to buy")
	}
	l.sku = catalogue.Items[0].SKU
	return nil
}

// customer signs up, and shops until the context ends.
func (l *load) customer(ctx context.Context, n int) {
	var token string
	for token == "" {
		var err error
		if token, err = l.signUp(ctx, n); l.over(ctx, err) {
			return
		}
	}
	for {
		if l.over(ctx, l.shop(ctx, token)) {
			return
		}
	}
}

// over takes note of how an attempt went, and reports whether it was the last.
func (l *load) over(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true // whatever was cut off by that has not failed
	}
	if err == nil {
		return false
	}
	l.mu.Lock()
	l.failed[err.Error()]++
	l.mu.Unlock()
	return !rest(ctx, time.Second)
}

func (l *load) signUp(ctx context.Context, n int) (token string, err error) {
	who := map[string]string{
		"email": fmt.Sprintf("load-%s-%d-%s@example.com", l.run, n, uuid.NewString()[:8]), "password": "correct horse " + uuid.NewString(), "name": "Load",
	}
	if err := l.write(ctx, "/v1/signup", "", who, nil); err != nil {
		return "", fmt.Errorf("signup: %w", err)
	}
	committed := time.Now()
	var session struct {
		Token string `json:"token"`
	}
	if err := l.write(ctx, "/v1/sessions", "", map[string]string{"email": who["email"], "password": who["password"]}, &session); err != nil {
		return "", fmt.Errorf("login: %w", err)
	}
	var account struct {
		Plan struct {
			Status string `json:"status"`
		} `json:"plan"`
	}
	if err := l.send(ctx, http.MethodGet, "/v1/account", session.Token, nil, &account); err != nil {
		return "", fmt.Errorf("account: %w", err)
	}
	if account.Plan.Status != "trialing" {
		return session.Token, fmt.Errorf("account: the trial did not begin in %s", loadWait)
	}
	l.took(&l.toTrial, time.Since(committed))
	return session.Token, nil
}

// shop fills a cart, checks it out and waits until the order is paid.
func (l *load) shop(ctx context.Context, token string) error {
	var cart struct {
		ID string `json:"cart_id"`
	}
	if err := l.write(ctx, "/v1/carts", token, nil, &cart); err != nil {
		return fmt.Errorf("cart: %w", err)
	}
	if err := l.write(ctx, "/v1/carts/"+cart.ID+"/items", token, map[string]any{"sku": l.sku, "quantity": 1}, nil); err != nil {
		return fmt.Errorf("item: %w", err)
	}
	var order struct {
		ID     string `json:"order_id"`
		Status string `json:"status"`
	}
	if err := l.write(ctx, "/v1/carts/"+cart.ID+"/checkout", token, map[string]string{"payment_method": "pm_card_visa"}, &order); err != nil {
		return fmt.Errorf("checkout: %w", err)
	}
	committed := time.Now()
	if err := l.send(ctx, http.MethodGet, "/v1/orders/"+order.ID, token, nil, &order); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	if order.Status != "paid" {
		return fmt.Errorf("order: it is %s after %s", order.Status, loadWait)
	}
	l.took(&l.toPaid, time.Since(committed))
	return nil
}

// write sends what writes, with an Idempotency-Key, until it is not told to come again later.
func (l *load) write(ctx context.Context, path, token string, body, into any) error {
	key := uuid.NewString()
	for {
		began := time.Now()
		err := l.send(ctx, http.MethodPost, path, token, body, into, "Idempotency-Key", key)
		var wrong *answerError
		if errors.As(err, &wrong) && wrong.retryAfter > 0 {
			l.mu.Lock()
			l.refused++
			l.mu.Unlock()
			if !rest(ctx, wrong.retryAfter) {
				return ctx.Err()
			}
			continue
		}
		if err == nil {
			l.took(&l.wrote, time.Since(began))
		}
		return err
	}
}

// answerError is an answer that is none of success.
type answerError struct {
	status     int
	slug       string
	retryAfter time.Duration // where it says so
}

func (e *answerError) Error() string { return fmt.Sprintf("%d %s", e.status, e.slug) }

// send sends a request; one that reads waits for the effect of what was written before.
func (l *load) send(ctx context.Context, method, path, token string, body, into any, header ...string) error {
	content := io.Reader(http.NoBody)
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, l.url+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if method == http.MethodGet {
		req.Header.Set("Prefer", fmt.Sprintf("wait=%d", int(loadWait.Seconds())))
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := l.http.Do(req)
	var where *url.Error
	switch {
	case errors.As(err, &where):
		return where.Err // without the address, which has ids: failures are counted by what they say
	case err != nil:
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		var problem struct {
			Type string `json:"type"`
		}
		_ = json.Unmarshal(answer, &problem) // what is no problem document has no type
		after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return &answerError{res.StatusCode, problem.Type, time.Duration(after) * time.Second}
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// rest waits, and reports whether the context still holds.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (l *load) took(all *[]time.Duration, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*all = append(*all, d)
}

func (l *load) writes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wrote)
}

// result is what was measured.
func (l *load) result(clients int, took time.Duration) *loaded {
	l.mu.Lock()
	defer l.mu.Unlock()
	figures := func(all []time.Duration) loadFigures {
		if len(all) == 0 {
			return loadFigures{}
		}
		slices.Sort(all)
		at := func(share float64) float64 {
			n := int(math.Ceil(share*float64(len(all)))) - 1
			return float64(all[max(n, 0)].Microseconds()) / 1000
		}
		return loadFigures{Count: len(all), PerSecond: float64(len(all)) / took.Seconds(), P50: at(0.5), P99: at(0.99)}
	}
	r := &loaded{
		URL: l.url, Clients: clients, Seconds: took.Seconds(),
		Writes: figures(l.wrote), ToTrial: figures(l.toTrial), ToPaid: figures(l.toPaid), Refused: l.refused, Failed: []loadFailure{},
	}
	for what, n := range l.failed {
		r.Failed = append(r.Failed, loadFailure{what, n})
	}
	slices.SortFunc(r.Failed, func(a, b loadFailure) int { return cmp.Or(b.Count-a.Count, cmp.Compare(a.What, b.What)) })
	return r
}
