package power

import (
	"sync"
	"testing"
	"time"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
)

// stillClock is a clock that a test sets forward.
type stillClock struct {
	mu      sync.Mutex // guards the fields below
	now     time.Time
	waiting map[chan time.Time]time.Time
}

func newStillClock() *stillClock {
	return &stillClock{now: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC), waiting: map[chan time.Time]time.Time{}}
}

func (c *stillClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// began is when the node did, on the clock.
var began = time.Date(2026, 1, 2, 11, 0, 0, 0, time.UTC)

func (c *stillClock) Boottime() time.Duration { return c.Now().Sub(began) }

func (c *stillClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := make(chan time.Time, 1)
	c.waiting[due] = c.now.Add(d)
	c.ring()
	return due
}

func (c *stillClock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.ring()
}

// ring is called with mu held.
func (c *stillClock) ring() {
	for due, at := range c.waiting {
		if !at.After(c.now) {
			due <- c.now
			delete(c.waiting, due)
		}
	}
}

func TestEarliest(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for _, tc := range []struct{ a, b, want time.Time }{
		{early, late, early}, {late, early, early}, {time.Time{}, late, late}, {late, time.Time{}, late}, {time.Time{}, time.Time{}, time.Time{}},
	} {
		if got := earliest(tc.a, tc.b); !got.Equal(tc.want) {
			t.Errorf("earliest(%v, %v) = %v; want %v", tc.a, tc.b, got, tc.want)
		}
	}
}

// TestDecide: every rule by itself, for requests that were seen ten seconds ago.
func TestDecide(t *testing.T) {
	now := time.Unix(1000, 0)
	since := now.Add(-10 * time.Second)
	const delay, block = powerpb.ShutdownInhibitor_DELAY, powerpb.ShutdownInhibitor_BLOCK
	plain, forced, critical := &powerpb.ShutdownRequest{}, &powerpb.ShutdownRequest{Force: true}, &powerpb.ShutdownRequest{Critical: true}
	one := func(mode powerpb.ShutdownInhibitor_Mode, limit time.Duration) []hold {
		return []hold{{id: "a", holder: "a", mode: mode, limit: limit, state: reasonHeld}}
	}
	gone := one(block, time.Hour)
	gone[0].state = reasonExpired
	for name, tc := range map[string]struct {
		request *powerpb.ShutdownRequest
		held    []hold
		reason  string
		until   time.Duration // after now
	}{
		"nobody":                         {plain, nil, reasonDraining, 0},
		"nobody any more":                {plain, gone, reasonDraining, 0},
		"delay":                          {plain, one(delay, 15*time.Second), reasonWaiting, 5 * time.Second},
		"delay over":                     {plain, one(delay, 10*time.Second), reasonDraining, 0},
		"delay, forced":                  {forced, one(delay, 15*time.Second), reasonWaiting, 5 * time.Second},
		"block":                          {plain, one(block, time.Second), reasonRefused, 0},
		"block, forced":                  {forced, one(block, time.Hour), reasonDraining, 0},
		"block, critical":                {critical, one(block, time.Hour), reasonWaiting, 20 * time.Second},
		"short block, critical":          {critical, one(block, 12*time.Second), reasonWaiting, 2 * time.Second},
		"block, critical and forced":     {&powerpb.ShutdownRequest{Critical: true, Force: true}, one(block, time.Hour), reasonDraining, 0},
		"delay, critical":                {critical, one(delay, time.Hour), reasonWaiting, 20 * time.Second},
		"the last of several":            {plain, append(one(delay, 15*time.Second), one(delay, time.Minute)...), reasonWaiting, 50 * time.Second},
		"one block among delays":         {plain, append(one(delay, time.Minute), one(block, time.Second)...), reasonRefused, 0},
		"one block among delays, forced": {forced, append(one(block, time.Second), one(delay, time.Minute)...), reasonWaiting, 50 * time.Second},
	} {
		v := decide(tc.request, since, tc.held, now)
		var until time.Time
		if tc.until != 0 {
			until = now.Add(tc.until)
		}
		if v.reason != tc.reason || !v.until.Equal(until) {
			t.Errorf("%s: %s until %v; want %s until %v", name, v.reason, v.until, tc.reason, until)
		}
	}
}
