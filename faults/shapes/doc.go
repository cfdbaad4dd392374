// Package shapes holds what the service says to Stripe, and what the fake of it answers, to Stripe's own description of its API: stripe-mock
// knows that and no state, and the fake a state and no more than is asked of it. It is tests alone, here because the service needs none of
// what they stand on.
package shapes
