// Package memory keeps resources in memory, for the namespaces whose contents do not outlive the runtime, and holds the part that
// the durable store shares with it.
//
// A write is decided by package change and then applied to a Table: the resources by id, and for each kind a bounded ring with its
// last events. Watchers read the ring by position, each at its own pace, and share the events in it. So
//
//   - a writer never waits for a watcher, and a watcher that falls off the ring is told that it was slow;
//   - an event is made once, whatever the number of watchers, and can be encoded once;
//   - Get costs a map look-up, List a copy of the ordered pointers, and neither depends on the length of the history;
//   - an open watch costs a position: there is no queue and nothing to unsubscribe.
//
// The durable store wraps a Table as well: it checks a write against what it has pending, logs the change, and calls Apply with the
// sequence of the log and the epoch that the log keeps.
package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
)

// Store is a state.State in memory. It is safe for concurrent use.
type Store struct {
	*Table
	now  func() time.Time
	most func() int

	mu       sync.Mutex // held from the check of a write to its application; guards the field below
	sequence uint64
}

var _ state.State = (*Store)(nil)

// Options of a store. The zero value is fine.
type Options struct {
	// Now is the clock that created and updated are taken from.
	Now func() time.Time
	// Limits bound the history of a kind; nil: DefaultLimits for each.
	Limits func(state.Kind) Limits
	// Most is how many resources of a kind there may be; nil: any number.
	Most func() int
}

// New returns an empty store with a new epoch: bookmarks of earlier stores are not valid in it.
func New(o Options) *Store {
	var epoch Epoch
	rand.Read(epoch[:]) // never fails: see its documentation
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{Table: NewTable(epoch, o.Limits), now: o.Now, most: o.Most}
}

// Create stores r. See state.State.
func (s *Store) Create(_ context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(state.PointerTo(r), o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Create(current, r, o, s.now())
	})
}

// Update replaces a resource. See state.State.
func (s *Store) Update(_ context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(state.PointerTo(r), o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Update(current, r, o, s.now())
	})
}

// Teardown moves a resource to the phase tearingDown. See state.State.
func (s *Store) Teardown(_ context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(p, o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Teardown(current, o, s.now())
	})
}

// Destroy removes a resource. See state.State.
func (s *Store) Destroy(_ context.Context, p state.Pointer, o state.WriteOptions) error {
	_, err := s.write(p, o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Destroy(current, o)
	})
	return err
}

// write decides and, unless it is a dry run, commits one change and what goes along with it.
func (s *Store) write(p state.Pointer, o state.WriteOptions, decide func(*resourcepb.Resource) (change.Change, error)) (*resourcepb.Resource, error) {
	c, wakes, err := s.commit(p, o, decide)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	for _, wake := range wakes {
		wake()
	}
	return c.After, nil
}

func (s *Store) commit(p state.Pointer, o state.WriteOptions, decide func(*resourcepb.Resource) (change.Change, error)) (change.Change, []func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := decide(s.Lookup(p))
	if err == nil {
		err = s.Room(c, s.most)
	}
	if err != nil || o.DryRun || c.None() {
		return c, nil, err
	}
	all, err := change.All(c, o, s.Lookup, s.now())
	if err != nil {
		return c, nil, err
	}
	wakes := make([]func(), 0, len(all))
	for _, c := range all {
		s.sequence++
		wakes = append(wakes, s.Apply(s.sequence, c))
	}
	return c, wakes, nil
}
