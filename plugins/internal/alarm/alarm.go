// Package alarm is for plugins that have something to do at a time, and not only when something has happened: a controller that names the
// time in its Reconcile is woken then.
package alarm

import (
	"context"
	"sync"
	"time"
)

// Clock is the time.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// System is the machine's.
type System struct{}

// Now is the time now.
func (System) Now() time.Time { return time.Now() }

// After returns a channel that tells the time after d.
func (System) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Alarm wakes a controller at a time that it has named. Its methods may be called by several goroutines.
type Alarm struct {
	clock Clock
	moved chan struct{} // holds one

	mu sync.Mutex // guards the field below
	at time.Time  // zero: never
}

// New returns an alarm that is set to no time.
func New(c Clock) *Alarm { return &Alarm{clock: c, moved: make(chan struct{}, 1)} }

// Ring sets the time, instead of one that was set before; zero is never.
func (a *Alarm) Ring(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.Equal(at) {
		return
	}
	a.at = at
	select {
	case a.moved <- struct{}{}:
	default: // one is enough
	}
}

// Watch calls wake at the time, until ctx is done. It is, or is part of, a controller's Watch.
func (a *Alarm) Watch(ctx context.Context, wake func()) error {
	for {
		select {
		case <-a.due():
			a.Ring(time.Time{})
			wake()
		case <-a.moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// due is nil, which never comes, without a time.
func (a *Alarm) due() <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.IsZero() {
		return nil
	}
	return a.clock.After(a.at.Sub(a.clock.Now()))
}
