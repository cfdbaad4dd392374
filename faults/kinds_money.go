package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgoutbox/pgoutbox/faults/outside"
	"github.com/pgoutbox/pgoutbox/internal/failpoint"
	"github.com/pgoutbox/pgoutbox/internal/payments/stripefake"
)

const (
	// shoppers check out at the same time.
	shoppers = 8
	// searchLag is how long the provider's search does not find an intent, as Stripe's does not.
	searchLag = 2 * time.Second
)

// moneyFaults are what comes to a request at the provider. One that hangs keeps its worker until the service gives up, which is seconds.
var moneyFaults = outside.Faults{Refuse: .02, Busy: .02, LoseRequest: .03, LoseAnswer: .05, HangBefore: .003, HangAfter: .007}

// moneyPoints are where a process dies in the middle of a payment, and around it.
var moneyPoints = []failpoint.Point{
	failpoint.PaymentBeginAfter, failpoint.PaymentIntentBefore, failpoint.PaymentIntentAfter, failpoint.PaymentConfirmAfter,
	failpoint.DeliverDedupe, failpoint.DeliverHandlerAfter, failpoint.DeliverCommitBefore, failpoint.DeliverCommitAfter,
	failpoint.ProducerCommitBefore, failpoint.ProducerCommitAfter,
}

// money has many check out while the provider, the network and the processes fail. What the provider did for each order is judged at the end of the
// stage, when no payment is under way.
func money(ctx context.Context, s *stage, _ time.Duration) (int, error) {
	n := s.checkouts
	switch {
	case n > 0:
	case s.long:
		n = 1000
	default:
		n = 40
	}
	pause := time.Second
	if n > 200 { // a process that starts costs as much as a hundred checkouts
		pause = 4 * time.Second
	}
	if s.bank == nil {
		s.bank = newBank(s)
	}
	before := s.payments.Injected().Harmed() + s.cuts()
	s.payments.SetSearchLag(searchLag)
	s.payments.SetFaults(moneyFaults)
	began := time.Now()
	hurting, end := context.WithCancel(ctx)
	var kills atomic.Int64
	var work, hurt sync.WaitGroup
	hurt.Go(func() {
		for sleep(hurting, 100*time.Millisecond) {
			s.bank.open(hurting)
		}
	})
	hurt.Go(func() { kills.Add(s.hurtPayments(hurting, rand.New(rand.NewPCG(s.seed, 700)), pause)) })
	var next atomic.Int64
	for i := range shoppers {
		rng := rand.New(rand.NewPCG(s.seed, 710+uint64(i)))
		work.Go(func() {
			if err := s.bank.shop(ctx, &request{customers: s.customers, rng: rng}, fmt.Sprintf("money%d-%d-%d", s.seed, began.UnixMilli(), i), &next, int64(n)); err != nil {
				s.violations.add("money: a customer got no answer: %v", err)
			}
		})
	}
	work.Wait()
	s.ratio("money, checkouts a second, rate", float64(n)/time.Since(began).Seconds())
	end()
	hurt.Wait()
	s.payments.SetFaults(outside.Faults{})
	return s.payments.Injected().Harmed() + s.cuts() - before + int(kills.Load()), s.resumes(ctx, "money", afterCrash)
}

// hurtPayments kills processes, most of them in the middle of a payment, and cuts connections, until ctx ends.
func (s *stage) hurtPayments(ctx context.Context, rng *rand.Rand, pause time.Duration) (kills int64) {
	for sleep(ctx, pause/2+time.Duration(rng.Int64N(int64(pause)))) {
		slot := s.slots[rng.IntN(len(s.slots))]
		if rng.IntN(3) == 0 {
			for _, p := range append(slices.Clone(s.dbs), s.apis...) {
				p.CutAll()
			}
			continue
		}
		if slot.awaitServe(ctx) != nil {
			continue
		}
		from := slot.logSize()
		died, running := slot.present()
		if !running || slot.arm(ctx, 1+rng.IntN(5), "kill", moneyPoints[rng.IntN(len(moneyPoints))]) != nil {
			continue
		}
		bound := time.NewTimer(2 * time.Second)
		select {
		case <-died:
		case <-bound.C:
			slot.kill() // anywhere, where it did not come by in time
		case <-ctx.Done():
			_ = slot.disarm(context.WithoutCancel(ctx))
			bound.Stop()
			return kills
		}
		bound.Stop()
		kills++
		if p := diedAt(slot, from); p != "" {
			s.mu.Lock()
			s.hits[string(p)]++
			s.mu.Unlock()
		}
	}
	return kills
}

// methods are what a customer of the bank pays with, by how it ends; MethodSlow ends as the bank decides.
var methods = []struct {
	name   string
	weight int
	paid   bool
}{
	{stripefake.MethodPays, 70, true}, {stripefake.MethodSlow, 18, false}, {"pm_card_chargeDeclined", 10, false}, {"nonsense", 2, false},
}

// shop checks out again and again until all customers together have made that many.
func (b *bank) shop(ctx context.Context, r *request, name string, next *atomic.Int64, n int64) error {
	bearer, err := r.signIn(ctx, name)
	if err != nil {
		return err
	}
	for i := next.Add(1); i <= n; i = next.Add(1) {
		at, drawn := 0, r.rng.IntN(100)
		for drawn >= methods[at].weight {
			drawn -= methods[at].weight
			at++
		}
		order, err := r.buy(ctx, fmt.Sprintf("%s-%d", name, i), bearer, methods[at].name)
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.methods[order] = methods[at].name
		if methods[at].name != stripefake.MethodSlow {
			b.paid[order] = methods[at].paid
		}
		b.mu.Unlock()
	}
	return nil
}
