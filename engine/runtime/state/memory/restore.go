package memory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// KeepEncoded returns the resource that data is the encoding of. It fails when data is none, or has no namespace, type or id.
func KeepEncoded(data []byte) (encoded.Resource, state.Kind, error) {
	r, m, err := encoded.Parse(data)
	if err != nil {
		return encoded.Resource{}, state.Kind{}, err
	}
	p := state.PointerTo(m)
	if p.Namespace == "" || p.Type == "" || p.ID == "" {
		return encoded.Resource{}, state.Kind{}, fmt.Errorf("%w: the resource has no name", state.ErrInvalid)
	}
	return r, p.Kind, nil
}

// Contents is all that a table holds of one kind at one moment, for the durable store to write down.
type Contents struct {
	Kind state.Kind
	// Resources are in the order of their ids.
	Resources []encoded.Resource
	// History holds the events that a watch may still go back to, the oldest first.
	History []Past
	// Evicted is the sequence of the last event that the history no longer has, Last that of the latest change.
	Evicted, Last uint64
}

// Past is an event in the history, and the sequence of its commit.
type Past struct {
	Sequence uint64
	Event    *state.Event
}

// Kinds returns the kinds that t knows, in no order.
func (t *Table) Kinds() []state.Kind {
	t.mu.RLock()
	defer t.mu.RUnlock()
	names := make([]state.Kind, 0, len(t.kinds))
	for name := range t.kinds {
		names = append(names, name)
	}
	return names
}

// Sequence returns that of the latest change.
func (t *Table) Sequence() uint64 { return t.sequence.Load() }

// Contents returns what t holds of a kind. Writers wait while pointers are copied, as for a List, and not while they are sorted.
func (t *Table) Contents(name state.Kind) Contents {
	k := t.makeKind(name)
	k.mu.RLock()
	c := Contents{Kind: name, Evicted: k.history.evicted, Last: k.history.last()}
	c.Resources = make([]encoded.Resource, 0, len(k.byID))
	for _, entries := range [][]*entry{k.order.sorted, k.order.added} {
		for _, e := range entries {
			if !e.IsGone() {
				c.Resources = append(c.Resources, e.Resource)
			}
		}
	}
	sorted := len(k.order.added) == 0
	records := k.history.copy(k.history.first, int(k.history.end-k.history.first))
	k.mu.RUnlock()

	if !sorted {
		slices.SortFunc(c.Resources, func(a, b encoded.Resource) int { return strings.Compare(a.ID(), b.ID()) })
	}
	for _, r := range records {
		c.History = append(c.History, Past{r.sequence, r.event})
	}
	return c
}

// Restore fills a kind that t does not know yet: with resources in the order of their ids, as they were after the change evicted. The
// changes since then are applied afterwards. It fails when an id is out of order.
func (t *Table) Restore(name state.Kind, resources []encoded.Resource, evicted uint64) error {
	k := t.makeKind(name)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.history.evicted = evicted
	k.byID = make(map[string]*entry, len(resources))
	k.order = order{sorted: make([]*entry, 0, len(resources))}
	k.index = index{}
	entries := make([]entry, len(resources))
	for i, r := range resources {
		id := r.ID()
		if i > 0 && id <= entries[i-1].ID() {
			return fmt.Errorf("%s: id %q does not follow %q", name, id, entries[i-1].ID())
		}
		entries[i] = entry{Resource: r}
		if n := k.history.limits.EventsOfID; n > 0 {
			entries[i].history = &history{limits: Limits{Events: n, Bytes: k.history.limits.Bytes}}
		}
		k.byID[id] = &entries[i]
		k.order.sorted = append(k.order.sorted, &entries[i])
	}
	return nil
}

// Advance makes sequence that of the latest change, unless a later one has been applied.
func (t *Table) Advance(sequence uint64) {
	if sequence > t.sequence.Load() {
		t.sequence.Store(sequence)
	}
}
