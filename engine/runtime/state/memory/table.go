package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// Limits bound the history of a kind.
type Limits struct {
	// Events and Bytes are how much the kind keeps, the defaults where they are zero. The newest event is always kept.
	Events, Bytes int
	// EventsOfID, if set, keeps that many events of each id besides, for as long as the resource is there: TailEvents with an id
	// then finds them however busy other ids are. For kinds that are a stream for each id, such as the logs of processes.
	EventsOfID int
}

// DefaultLimits are those of a kind that has none of its own. A watcher that falls further behind is slow.
var DefaultLimits = Limits{Events: 2048, Bytes: 2 << 20}

func (l Limits) orDefault() Limits {
	if l.Events <= 0 {
		l.Events = DefaultLimits.Events
	}
	if l.Bytes <= 0 {
		l.Bytes = DefaultLimits.Bytes
	}
	return l
}

// Table holds what has been committed: the resources by id, and the history that watchers read. It serves all reads. One writer at a
// time applies changes to it in the order of their sequence; readers never wait for each other, and a writer waits for no watcher.
type Table struct {
	epoch  Epoch
	limits func(state.Kind) Limits
	// sequence is that of the latest change, which watchers may be about to see.
	sequence atomic.Uint64

	mu sync.RWMutex // guards kinds, not what is in them
	// A kind that was written or watched once stays. There are as many as there are definitions.
	kinds map[state.Kind]*kind
}

// NewTable returns an empty table. limits may be nil.
func NewTable(epoch Epoch, limits func(state.Kind) Limits) *Table {
	if limits == nil {
		limits = func(state.Kind) Limits { return DefaultLimits }
	}
	return &Table{epoch: epoch, limits: limits, kinds: map[state.Kind]*kind{}}
}

// Epoch returns the 8 bytes that every bookmark of this table begins with.
func (t *Table) Epoch() []byte { return t.epoch[:] }

// kind holds the resources and the history of one kind.
type kind struct {
	name state.Kind

	mu      sync.RWMutex // guards the fields below
	byID    map[string]*entry
	order   order
	index   index
	history history
	changed chan struct{} // closed at the next change; nil while nobody waits for one
}

// entry is a resource that is there.
type entry struct {
	encoded.Resource
	history *history // nil unless the kind keeps EventsOfID
}

func (t *Table) kind(k state.Kind) *kind {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.kinds[k]
}

func (t *Table) makeKind(k state.Kind) *kind {
	if known := t.kind(k); known != nil {
		return known
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.kinds[k]
	if known == nil {
		history := history{limits: t.limits(k).orDefault(), dropped: dropped}
		known = &kind{name: k, byID: map[string]*entry{}, index: index{}, history: history}
		t.kinds[k] = known
	}
	return known
}

// mostKinds is how many kinds may be written or watched: a kind that was stays.
const mostKinds = 10_000

// Room fails with state.ErrLimit when c creates a resource of a kind that has as many as it may have, or of one kind too many.
func (t *Table) Room(c change.Change, most func() int) error {
	if c.Before != nil || c.After == nil {
		return nil
	}
	name := c.Pointer().Kind
	k := t.kind(name)
	if k == nil {
		return t.roomForKind()
	}
	if most == nil {
		return nil
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if n := len(k.byID); n >= most() {
		return fmt.Errorf("%w: there are %d resources of %s, and %d are allowed", state.ErrLimit, n, name, most())
	}
	return nil
}

func (t *Table) roomForKind() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := len(t.kinds); n >= mostKinds {
		return fmt.Errorf("%w: %d kinds are in use, and %d are allowed", state.ErrLimit, n, mostKinds)
	}
	return nil
}

// Lookup returns a resource, nil if there is none.
func (t *Table) Lookup(p state.Pointer) *resourcepb.Resource {
	k := t.kind(p.Kind)
	if k == nil {
		return nil
	}
	return k.lookup(p.ID).Message()
}

// lookup returns what id names, which may be gone.
func (k *kind) lookup(id string) encoded.Resource {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e := k.byID[id]; e != nil {
		return e.Resource
	}
	return encoded.Resource{}
}

// Get returns a resource or ErrNotFound.
func (t *Table) Get(_ context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	if r := t.Lookup(p); r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%s: %w", p, state.ErrNotFound)
}

// List returns the resources of a kind that q selects, in the order of their ids.
func (t *Table) List(_ context.Context, name state.Kind, q state.Query) ([]encoded.Resource, error) {
	selector, err := q.Compile()
	if err != nil {
		return nil, err
	}
	k := t.kind(name)
	if k == nil {
		return nil, nil
	}
	candidates, _ := k.candidates(q)
	return selected(candidates, selector), nil
}

// moment is where the history of a kind ended at some time.
type moment struct {
	position uint64 // of the next record
	sequence uint64 // of the last
}

// now returns the present moment. k.mu is held.
func (k *kind) now() moment { return moment{k.history.end, k.history.last()} }

// candidates returns resources, sorted, among which are all that q selects, as they are at one moment.
func (k *kind) candidates(q state.Query) ([]encoded.Resource, moment) {
	keys := wanted(q.Labels)
	k.mu.RLock()
	if keys != nil && k.index.has(keys) {
		defer k.mu.RUnlock()
		return kept(k.index.candidates(q.Labels)), k.now()
	}
	if keys == nil && k.order.settled() {
		defer k.mu.RUnlock()
		return kept(k.order.sorted), k.now()
	}
	k.mu.RUnlock()

	k.mu.Lock()
	defer k.mu.Unlock()
	if keys != nil && k.index.cover(keys, k.byID) {
		return kept(k.index.candidates(q.Labels)), k.now()
	}
	if !k.order.settled() {
		k.order.settle()
	}
	return kept(k.order.sorted), k.now()
}

// selected returns the resources that s selects, in the memory of all.
func selected(all []encoded.Resource, s *state.Selector) []encoded.Resource {
	if s.All() {
		return all
	}
	return slices.DeleteFunc(all, func(r encoded.Resource) bool { return !s.Matches(r) })
}

// Apply puts c in place as commit number sequence, which is higher than any before, and returns what wakes the watchers: the caller
// calls it when it has released its own lock. Only one Apply runs at a time.
func (t *Table) Apply(sequence uint64, c change.Change) (wake func()) {
	p := c.Pointer()
	k := t.makeKind(p.Kind)
	event := c.Event(t.epoch.bookmark(sequence))
	r := &record{sequence: sequence, weight: weigh(event.GetResource()), event: event}

	k.mu.Lock()
	defer k.mu.Unlock()
	t.sequence.Store(sequence)
	k.put(p.ID, c, r)
	k.history.append(r)
	changed := k.changed
	k.changed = nil
	return func() {
		if changed != nil {
			close(changed)
		}
	}
}

// put makes what c does what id names. k.mu is held.
func (k *kind) put(id string, c change.Change, r *record) {
	e := k.byID[id]
	if e != nil && e.IsEncoded() { // the history has it for the first time
		r.weight += weigh(c.Before)
	}
	switch {
	case c.After == nil:
		r.entry = e
		k.index.follow(e, c.Before, nil)
		e.Put(nil)
		k.order.remove()
		delete(k.byID, id)
		return
	case e == nil:
		e = &entry{Resource: encoded.Gone(id)}
		if n := k.history.limits.EventsOfID; n > 0 {
			e.history = &history{limits: Limits{Events: n, Bytes: k.history.limits.Bytes}}
		}
		k.order.add(e)
		k.byID[id] = e
	}
	k.index.follow(e, c.Before, c.After)
	e.Put(c.After)
	r.entry = e
	if e.history != nil {
		e.history.append(r)
	}
}

// dropped is told of a record that the history of a kind no longer has, and encodes its resource unless that has changed since. The kind's
// mu is held.
func dropped(r *record) {
	if e := r.entry; e.history == nil && e.Is(r.event.GetResource()) {
		e.Encode()
	}
}
