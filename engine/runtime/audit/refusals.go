package audit

import (
	"sync"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"google.golang.org/protobuf/proto"
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

// add counts a refused call. It does not wait for anything.
func (r *refusals) add(spec *machinepb.AuditRecord) {
	r.mu.Lock()
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
	first := c.count == 0
	c.waiting = spec
	c.count++
	r.mu.Unlock()
	if first {
		select {
		case r.wake <- struct{}{}:
		default: // A wake-up is pending.
		}
	}
}

// due returns what is to be written now, and how long until there is more, 0 for never.
func (r *refusals) due(now time.Time) (due []*machinepb.AuditRecord, next time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.calls {
		left := c.written.Add(r.window).Sub(now)
		switch {
		case c.count == 0 && left <= 0:
			delete(r.calls, key)
			if r.of[key.identity]--; r.of[key.identity] == 0 {
				delete(r.of, key.identity)
			}
			continue
		case c.count > 0 && (left <= 0 || left > r.window): // The clock may have been set back.
			spec := proto.CloneOf(c.waiting)
			spec.Repeated = c.count - 1
			due = append(due, spec)
			c.waiting, c.count, c.written = nil, 0, now
			left = r.window
		}
		if next == 0 || left < next {
			next = left
		}
	}
	return due, next
}
