package main

import (
	"context"
	"time"
)

// connectionsCut resets connections to the database: all at once, and in the middle of what is being sent.
func connectionsCut(ctx context.Context, s *stage, d time.Duration) (int, error) {
	before := s.cuts()
	for _, p := range s.dbs {
		p.CutInside(0.01)
	}
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		sleep(ctx, d/2)
		for _, p := range s.dbs {
			p.CutAll()
		}
		for _, p := range s.apis {
			p.CutAll()
		}
	}
	for _, p := range s.dbs {
		p.CutInside(0)
	}
	return s.cuts() - before, s.resumes(ctx, "cut", afterCrash)
}

// commitsUnknown loses the answers to COMMIT, and those of the service.
func commitsUnknown(ctx context.Context, s *stage, d time.Duration) (int, error) {
	before := s.cuts()
	for _, p := range s.dbs {
		p.CutAfterCommit(0.05)
	}
	for _, p := range s.apis {
		p.CutAnswers(0.1)
	}
	sleep(ctx, d)
	for _, p := range s.dbs {
		p.CutAfterCommit(0)
	}
	for _, p := range s.apis {
		p.CutAnswers(0)
	}
	return s.cuts() - before, s.resumes(ctx, "commit", afterCrash)
}

// cuts is how many connections were cut so far.
func (s *stage) cuts() int {
	n := 0
	for _, p := range append(s.dbs[:len(s.dbs):len(s.dbs)], s.apis...) {
		n += int(p.Stats().Cut)
	}
	return n
}

// blackHole lets the network to the database swallow everything for a while.
func blackHole(ctx context.Context, s *stage, d time.Duration) (int, error) {
	for _, p := range s.dbs {
		p.BlackHole(true)
	}
	s.refuses(ctx, "black-hole", d)
	for _, p := range s.dbs {
		p.BlackHole(false)
		p.CutAll() // what is lost on the way does not come any more
	}
	return 1, s.resumes(ctx, "black-hole", afterCrash)
}

// listeners drops the connections that listen, and then swallows notifications.
func listeners(ctx context.Context, s *stage, d time.Duration) (int, error) {
	for _, p := range s.dbs {
		p.CutListeners()
	}
	if err := s.resumes(ctx, "listen-dropped", afterCrash); err != nil {
		return 1, err
	}
	for _, p := range s.dbs {
		p.SwallowNotifications(true)
	}
	defer func() {
		for _, p := range s.dbs {
			p.SwallowNotifications(false)
		}
	}()
	if err := s.resumes(ctx, "listen-swallowed", afterCrash); err != nil {
		return 2, err
	}
	sleep(ctx, d)
	return 2, s.resumes(ctx, "listen-swallowed", afterCrash)
}
