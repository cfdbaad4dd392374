package main

// target is what a figure has to reach.
type target struct {
	name string
	// against is the figure it is divided by; empty: the figure itself counts.
	against string
	// least is what it has to be, aim what it should be.
	least, aim float64
	// lower is better.
	lower bool
}

// targets are printed beside the figures. Missing one is no failure of the bench.
var targets = []target{
	{name: "ours/handle/keys=10000", against: "river/complete-tx", least: 20, aim: 40},
	{name: "ours/handle-exec", against: "river/complete-tx", least: 10, aim: 16},
	{name: "ours/handle/keys=10000", against: "watermill/best", least: 4, aim: 10},
	{name: "ours/batch/consumers=3", against: "limit/one-statement", least: 0.4, aim: 0.7},
	{name: "ours/handle/keys=1", against: "ours/handle/keys=10000", least: 0.9, aim: 1},
	{name: "ours/handle/failing=1%", against: "ours/handle/keys=10000", least: 0.5, aim: 0.75},
	{name: "write/append", against: "write/state", least: 0.7, aim: 0.85},
	{name: "sustained/ours", against: "sustained/river", least: 6, aim: 12},
	{name: "latency/ours/p50", against: "latency/river/p50", least: 1.2, aim: 0.9, lower: true},
	{name: "latency/ours/p99", against: "latency/river/p99", least: 1.5, aim: 1, lower: true},
	{name: "backlog/rss", least: 150, aim: 80, lower: true},
	{name: "backlog/end-over-start", least: 0.9, aim: 1},
	{name: "snapshot/last-over-first", least: 0.8, aim: 0.95},
	{name: "scrape/p50", least: 5, aim: 2, lower: true},
	{name: "overview/p50", least: 50, aim: 20, lower: true},
	{name: "idle/queries", least: 20, aim: 5, lower: true},
}

// verdict says how v does.
func (t target) verdict(v float64) string {
	reaches := func(bound float64) bool { return v >= bound && !t.lower || v <= bound && t.lower }
	switch {
	case reaches(t.aim):
		return "ok, aim reached"
	case reaches(t.least):
		return "ok"
	default:
		return "short"
	}
}
