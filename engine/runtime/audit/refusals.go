package audit

import (
	"sync"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
)

// mostDifferent is how many different refused calls of one identity are told apart within a window.
const mostDifferent = 16

// refusals counts refused calls.
type refusals struct {
	window time.Duration
	wake   chan struct{}

	mu    sync.Mutex // guards the fields below
	calls map[call]*counted
	of    map[string]int // how many of calls an identity has
}

// call is what equal calls have in common. Beyond mostDifferent of an identity, the rest are equal.
type call struct{ identity, verb, namespace, typ string }

type counted struct {
	waiting *machinepb.AuditRecord // the last that is not written
	count   uint32                 // how many are not written
	written time.Time
}

func newRefusals(window time.Duration) *refusals {
	return &refusals{window: window, wake: make(chan struct{}, 1), calls: map[call]*counted{}, of: map[string]int{}}
}

// add takes up a refused call. It returns whether spec is to be written now: the first of equal calls is, those within a window after that are
// counted. It does not wait for anything.
func (r *refusals) add(spec *machinepb.AuditRecord, now time.Time) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := call{identity(spec.GetWho()), spec.GetVerb(), spec.GetNamespace(), spec.GetType()}
	c := r.calls[key]
	if c == nil && r.of[key.identity] >= mostDifferent {
		key = call{identity: key.identity}
		c = r.calls[key]
	}
	if c == nil {
		c = &counted{}
		r.calls[key] = c
		r.of[key.identity]++
	}
	if c.count > 0 || !r.over(c, now) {
		c.waiting = spec
		c.count++
		return false
	}
	c.written = now
	select {
	case r.wake <- struct{}{}: // to wait for the end of the window
	default: // A wake-up is pending.
	}
	return true
}

// over says that the window after the last record of c has ended. The clock may have been set back.
func (r *refusals) over(c *counted, now time.Time) bool {
	left := c.written.Add(r.window).Sub(now)
	return left <= 0 || left > r.window
}

// due returns what was counted in windows that have ended, and how long until the next ends, 0 for never.
func (r *refusals) due(now time.Time) (due []*machinepb.AuditRecord, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.calls {
		switch over := r.over(c, now); {
		case over && c.count == 0:
			delete(r.calls, key)
			if r.of[key.identity]--; r.of[key.identity] == 0 {
				delete(r.of, key.identity)
			}
			continue
		case over:
			c.waiting.Repeated = c.count - 1
			due = append(due, c.waiting)
			c.waiting, c.count, c.written = nil, 0, now
		}
		if left := c.written.Add(r.window).Sub(now); next == 0 || left < next {
			next = left
		}
	}
	return due, next
}
