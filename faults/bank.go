package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/pgoutbox/pgoutbox/faults/outside"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

// webhookTries is how often a webhook that is not taken is sent again. Stripe does so for days.
const webhookTries = 20

// bank decides what takes its time at the provider, tells the service of results by webhooks, and knows how each order of its customers has
// to end. Its methods do nothing where there is none.
type bank struct {
	s   *stage
	rng *rand.Rand

	mu      sync.Mutex
	methods map[string]string // by order
	paid    map[string]bool   // how it has to end
	told    map[string]int    // webhooks that are still to be sent, by intent; 0: all were
	tries   map[string]int
	sending sync.Mutex

	webhooks, refused, forged int
	ended                     map[string]int // orders, by method and end
}

func newBank(s *stage) *bank {
	return &bank{
		s: s, rng: rand.New(rand.NewPCG(s.seed, 701)), methods: map[string]string{}, paid: map[string]bool{}, told: map[string]int{}, tries: map[string]int{},
		ended: map[string]int{},
	}
}

// open goes through the payments once: one that is processing gets its result, and of a result the service is told, mostly once, by some twice and
// by some never; it has to ask then. A webhook may overtake the answer that it is about.
func (b *bank) open(ctx context.Context) {
	if b == nil {
		return
	}
	b.sending.Lock()
	defer b.sending.Unlock()
	for _, i := range b.s.payments.Intents() {
		b.mu.Lock()
		left, known := b.told[i.ID]
		b.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case i.Status == stripefake.StatusProcessing && b.rng.IntN(4) == 0:
			b.settle(i)
		case i.Status == stripefake.StatusSucceeded || i.Status == stripefake.StatusRequiresPaymentMethod:
			if !known {
				left = []int{0, 0, 1, 1, 1, 1, 2, 2}[b.rng.IntN(8)]
			}
			if left > 0 {
				left = b.tell(ctx, i.ID, left)
			}
			b.mu.Lock()
			b.told[i.ID] = left
			b.mu.Unlock()
		}
	}
}

func (b *bank) settle(i stripefake.Intent) {
	paid := b.rng.IntN(5) > 0
	b.mu.Lock()
	b.paid[i.OrderID] = paid
	b.mu.Unlock()
	if err := b.s.payments.Settle(i.ID, paid); err != nil {
		b.s.violations.add("money: %v", err)
	}
}

// tell sends a webhook to some process, now and then first one that is signed by somebody else, and returns how many are left to be sent.
func (b *bank) tell(ctx context.Context, intent string, left int) int {
	url := "http://" + b.s.apis[b.rng.IntN(len(b.s.apis))].Addr() + "/v1/webhooks/stripe"
	send := func(secret string) (status int, err error) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		err = b.s.payments.SendWebhook(ctx, url, secret, intent)
		var refused *outside.WebhookRefusedError
		switch {
		case errors.As(err, &refused):
			return refused.Status, nil
		case err != nil:
			return 0, err
		}
		return http.StatusOK, nil
	}
	if b.rng.IntN(20) == 0 {
		b.forged++
		if status, err := send("whsec_of_somebody_else"); err == nil && status != http.StatusBadRequest && status < 500 {
			b.s.violations.add("money: a webhook that somebody else signed was answered with %d", status)
		}
	}
	switch status, err := send(hookSecret); {
	case err == nil && status == http.StatusOK:
		b.webhooks++
		return left - 1
	case err == nil && status < 500:
		b.s.violations.add("money: a webhook was answered with %d", status)
	}
	b.refused++
	b.tries[intent]++
	if b.tries[intent] > webhookTries {
		return 0
	}
	return left
}

// judge holds an order to how it had to end.
func (b *bank) judge(order, status string, c outside.Order, v *verdict) {
	if b == nil || b.methods[order] == "" {
		return
	}
	want := map[bool]string{true: "paid", false: "payment_failed"}[b.paid[order]]
	b.ended[b.methods[order]+" "+status]++
	if status != want {
		v.Lost++
		v.Found = append(v.Found, fmt.Sprintf("order %s, by %s, is %s and should be %s; it was charged %d times", order, b.methods[order], status, want, c.Charges))
	}
}

// say tells how many orders came to which end.
func (b *bank) say() {
	if b == nil {
		return
	}
	intents, charges := b.s.payments.Intents(), 0
	for _, i := range intents {
		charges += i.Charges
	}
	n := b.s.payments.Injected()
	b.s.say("money: %d checkouts ended as %v; of all orders %d intents and %d charges; %d requests at the provider: %+v\n", len(b.methods), b.ended, len(intents), charges, n.Requests, n)
	b.s.say("money: %d webhooks were taken, %d not, and %d were forged\n", b.webhooks, b.refused, b.forged)
}
