// Package ratelimit counts requests in the database, so that a limit holds for all processes together.
package ratelimit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Routes and kinds of limits.
const (
	Signup   = "signup"
	Login    = "login"
	Checkout = "checkout"

	// Address is per address of the client, see Network.
	Address = "address"
	// Account is per account, for a login whether there is one or not.
	Account = "account"
	// Pair is per account and address together.
	Pair = "pair"
)

// Of names a limit.
type Of struct{ Route, Kind string }

func (o Of) String() string { return o.Route + ":" + o.Kind }

// Limit is how many requests there may be at once, and in how long a time that many can be had again, evenly: after 60 in 1m comes one a
// second.
type Limit struct {
	Requests int
	Period   time.Duration
}

// step is how long one request takes up of the limit.
func (l Limit) step() time.Duration { return l.Period / time.Duration(l.Requests) }

// slack is how much of it may be taken up when one more is let through.
func (l Limit) slack() time.Duration { return time.Duration(l.Requests-1) * l.step() }

// Bounds of what a limit may be.
const (
	MaxRequests = 1_000_000
	MinPeriod   = time.Second
	MaxPeriod   = 24 * time.Hour
)

// Limits are those that hold: what is not among them is not limited, so that nil limits nothing.
type Limits map[Of]Limit

// Defaults returns the limits that hold when nothing else is said. They leave room to an office or a school behind one address, and none to a
// machine:
//   - a signup costs a hash and a mail: 20 at once from an address, then one every three minutes;
//   - a login costs a hash, and lists of breached passwords are tried by the million: 60 a minute from an address;
//   - guessing at one account: 10 at once from an address and then 40 an hour, and 100 an hour from all addresses together. NIST SP 800-63B-4 has
//     no more than 100 guesses in a row. The limit of the pair is far below that of the account, so that a stranger at one address uses up their
//     own attempts at an account, and not its owner's;
//   - a checkout takes stock from others: 30 a minute for an account, 120 from an address.
func Defaults() Limits {
	return Limits{
		{Signup, Address}:   {20, time.Hour},
		{Login, Address}:    {60, time.Minute},
		{Login, Pair}:       {10, 15 * time.Minute},
		{Login, Account}:    {100, time.Hour},
		{Checkout, Account}: {30, time.Minute},
		{Checkout, Address}: {120, time.Minute},
	}
}

// All returns the names of all limits that there can be, in order.
func All() []Of {
	return slices.SortedFunc(maps.Keys(Defaults()), func(a, b Of) int { return strings.Compare(a.String(), b.String()) })
}

// Parse reads limits: off, or a list like signup:address=20/1h,login:pair=off. What it does not name has its default, so that an empty one is
// the defaults. An error names the part that is wrong.
func Parse(value string) (Limits, error) {
	switch value = strings.TrimSpace(value); value {
	case "off":
		return nil, nil
	case "":
		return Defaults(), nil
	}
	limits, known, seen := Defaults(), Defaults(), map[Of]bool{}
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		wrong := func(format string, args ...any) (Limits, error) {
			return nil, fmt.Errorf("%q %s", part, fmt.Sprintf(format, args...))
		}
		name, limit, ok := strings.Cut(part, "=")
		if !ok {
			return wrong("must be like signup:address=20/1h, or signup:address=off; and off alone is for all of them")
		}
		route, kind, _ := strings.Cut(strings.TrimSpace(name), ":")
		of := Of{route, kind}
		if _, ok := known[of]; !ok {
			return wrong("names no limit: there are %s", names())
		}
		if seen[of] {
			return wrong("is there twice")
		}
		seen[of] = true
		if limit = strings.TrimSpace(limit); limit == "off" {
			delete(limits, of)
			continue
		}
		parsed, err := parseLimit(limit)
		if err != nil {
			return wrong("%s", err)
		}
		limits[of] = parsed
	}
	return limits, nil
}

func parseLimit(value string) (Limit, error) {
	number, period, _ := strings.Cut(value, "/")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > MaxRequests {
		return Limit{}, fmt.Errorf("must have a number of requests from 1 to %d before the /", MaxRequests)
	}
	d, err := time.ParseDuration(period)
	if err != nil || d < MinPeriod || d > MaxPeriod {
		return Limit{}, errors.New("must have a time from 1s to 24h after the /, like 90s or 15m")
	}
	return Limit{n, d}, nil
}

func names() string {
	var all []string
	for _, of := range All() {
		all = append(all, of.String())
	}
	return strings.Join(all, ", ")
}
