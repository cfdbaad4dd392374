package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	// requestTime is how long a client waits for an answer. The service's own limits are below it.
	requestTime = 15 * time.Second
	// patience is how long a client goes on asking for an answer that it does not get.
	patience = 3 * time.Minute

	password = "correct horse battery"
	mailHost = "@customers.test"
)

// customers sign up and check out over HTTP, each request with an Idempotency-Key, and insist on an answer.
type customers struct {
	journal *journal
	client  *http.Client
	apis    func() []string // where the service's processes can be reached
	seed    uint64
	pause   time.Duration // between two customers of one client

	next       atomic.Int64
	slowest    atomic.Int64 // the longest time that a request took, answered or not
	unready    atomic.Int64 // answers of 503
	noRetry    atomic.Int64 // of these, without Retry-After
	violations *violations

	done sync.WaitGroup
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	raw    []byte
}

func (a answer) text(name string) string {
	var fields map[string]json.RawMessage
	var s string
	if json.Unmarshal(a.raw, &fields) == nil {
		_ = json.Unmarshal(fields[name], &s)
	}
	return s
}

func newCustomers(j *journal, apis func() []string, seed uint64, pause time.Duration, v *violations) *customers {
	return &customers{
		journal: j, apis: apis, seed: seed, pause: pause, violations: v,
		client: &http.Client{Timeout: requestTime, Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 10 * time.Second}},
	}
}

// run starts clients, which go on until ctx ends; what they have begun they bring to its end.
func (c *customers) run(ctx context.Context, clients int) {
	for client := range clients {
		rng := rand.New(rand.NewPCG(c.seed, uint64(client)))
		c.done.Go(func() {
			for ctx.Err() == nil {
				if err := c.customer(context.WithoutCancel(ctx), rng, c.next.Add(1)); err != nil {
					c.violations.add("a customer got no answer: %v", err)
				}
				sleep(ctx, c.pause)
			}
		})
	}
}

func (c *customers) wait() { c.done.Wait() }

// customer is one customer's way: an account, and an order that is paid, or declined for some.
func (c *customers) customer(ctx context.Context, rng *rand.Rand, n int64) error {
	r := &request{customers: c, rng: rng}
	name := fmt.Sprintf("%d-%d", c.seed, n)
	bearer, err := r.signIn(ctx, name)
	if err != nil {
		return err
	}
	method := "pm_card_visa"
	if rng.IntN(10) == 0 {
		method = "pm_card_chargeDeclined"
	}
	_, err = r.buy(ctx, name, bearer, method)
	return err
}

// signIn makes an account of that name, which nobody else has, and returns what its requests are authorized with.
func (r *request) signIn(ctx context.Context, name string) (bearer string, err error) {
	email := "c" + name + mailHost
	signup, err := r.do(ctx, "POST", "/v1/signup", map[string]any{"email": email, "password": password, "name": "A Customer"}, "", name+"-signup", "user.signed_up")
	if err != nil || signup.status != http.StatusCreated {
		return "", unexpected("signup", signup, err)
	}
	session, err := r.do(ctx, "POST", "/v1/sessions", map[string]any{"email": email, "password": password}, "", "", "")
	if err != nil || session.status != http.StatusCreated {
		return "", unexpected("session", session, err)
	}
	return "Bearer " + session.text("token"), nil
}

// buy fills a cart and checks it out, and returns the order's id.
func (r *request) buy(ctx context.Context, name, bearer, method string) (order string, err error) {
	key := func(step string) string { return name + "-" + step }
	cart, err := r.do(ctx, "POST", "/v1/carts", nil, bearer, key("cart"), "")
	if err != nil || cart.status != http.StatusCreated {
		return "", unexpected("cart", cart, err)
	}
	path := "/v1/carts/" + cart.text("cart_id")
	for i, sku := range []string{"espresso-beans", "filter-beans"}[:1+r.rng.IntN(2)] {
		item, err := r.do(ctx, "POST", path+"/items", map[string]any{"sku": sku, "quantity": 1}, bearer, key("item"+strconv.Itoa(i)), "")
		if err != nil || item.status >= 300 && item.status != http.StatusNotFound {
			return "", unexpected("item", item, err)
		}
	}
	checkout, err := r.do(ctx, "POST", path+"/checkout", map[string]any{"payment_method": method}, bearer, key("checkout"), "cart.checked_out")
	if err != nil || checkout.status != http.StatusAccepted {
		return "", unexpected("checkout", checkout, err)
	}
	return checkout.text("order_id"), nil
}

func unexpected(step string, a answer, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	return fmt.Errorf("%s: %d %s", step, a.status, a.raw)
}

// request makes requests of one customer.
type request struct {
	*customers
	rng *rand.Rand
}

// do repeats a request until it is answered, and journals the event of the answer. With a key it asks again now and then:
// the answer has to be the first one.
func (r *request) do(ctx context.Context, method, path string, body any, bearer, key, event string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	correlation := uuid.NewString()
	first, err := r.insist(ctx, method, path, body, bearer, key, correlation)
	if err != nil || first.status >= 300 {
		return first, err
	}
	if event != "" {
		id, err := uuid.Parse(first.text("event_id"))
		if err != nil {
			return first, fmt.Errorf("no event id in %s", first.raw)
		}
		if err := r.journal.acknowledge(entry{event, id, first.text("correlation_id")}); err != nil {
			return first, err
		}
	}
	if key != "" && r.rng.IntN(8) == 0 {
		again, err := r.insist(ctx, method, path, body, bearer, key, uuid.NewString())
		switch {
		case err != nil:
			return first, err
		case again.status != first.status || !bytes.Equal(again.raw, first.raw):
			r.violations.add("%s %s: a repeat of a key got another answer: %d %s, first %d %s", method, path, again.status, again.raw, first.status, first.raw)
		case again.header.Get("Idempotent-Replayed") != "true":
			r.violations.add("%s %s: a repeat of a key does not say that it is one", method, path)
		}
	}
	return first, nil
}

func (r *request) insist(ctx context.Context, method, path string, body any, bearer, key, correlation string) (answer, error) {
	var last string
	for {
		apis := r.apis()
		began := time.Now()
		a, err := r.once(ctx, method, "http://"+apis[r.rng.IntN(len(apis))]+path, body, bearer, key, correlation)
		maximum(&r.slowest, time.Since(began))
		switch {
		case err != nil:
			last = err.Error()
		case a.status == http.StatusServiceUnavailable:
			r.unready.Add(1)
			if a.header.Get("Retry-After") == "" {
				r.noRetry.Add(1)
			}
			last = string(a.raw)
		case a.status >= 500:
			return a, fmt.Errorf("%s %s: %d %s", method, path, a.status, a.raw)
		case a.header.Get("Retry-After") == "":
			return a, nil
		default:
			last = string(a.raw)
		}
		if !sleep(ctx, time.Duration(20+r.rng.IntN(80))*time.Millisecond) {
			return answer{}, fmt.Errorf("%s %s: %w; last: %s", method, path, ctx.Err(), last)
		}
	}
}

func (r *request) once(ctx context.Context, method, url string, body any, bearer, key, correlation string) (answer, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range map[string]string{"Authorization": bearer, "Idempotency-Key": key, "X-Correlation-ID": correlation} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	res, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{res.StatusCode, res.Header, raw}, nil
}

// sleep waits, and reports whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func maximum(into *atomic.Int64, d time.Duration) {
	for {
		was := into.Load()
		if int64(d) <= was || into.CompareAndSwap(was, int64(d)) {
			return
		}
	}
}

// violations are promises that were seen broken and that are no lost, duplicated, misordered or stuck event.
type violations struct {
	mu   sync.Mutex
	said []string
}

func (v *violations) add(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said = append(v.said, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (v *violations) all() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]string(nil), v.said...)
}
