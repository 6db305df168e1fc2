package memory

import (
	"sort"
	"sync"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// record is one event in the history. All watchers share it and the events that it holds.
type record struct {
	sequence uint64
	weight   int
	event    *state.Event
	entry    *entry // that it is about

	// What a watcher sees of an update that makes a resource begin or cease to match its query. Made once, for the first who asks.
	once     sync.Once
	entering *state.Event
	leaving  *state.Event
}

// transitions returns r as a creation and as a destruction.
func (r *record) transitions() (entering, leaving *state.Event) {
	r.once.Do(func() {
		e := r.event
		r.entering = &state.Event{EventType: resourcepb.EventType_CREATED, Resource: e.GetResource(), Bookmark: e.GetBookmark()}
		r.leaving = &state.Event{EventType: resourcepb.EventType_DESTROYED, Resource: e.GetResource(), Bookmark: e.GetBookmark()}
	})
	return r.entering, r.leaving
}

// history keeps the last records of a kind in a ring. Positions count up from 0 and are never used again; the ring holds those from
// first to end. It takes as much memory as it holds, up to its limits. The zero history with limits is empty.
type history struct {
	limits  Limits
	dropped func(*record) // is told of each record that is dropped, unless it is nil
	ring    []*record     // its length is a power of two
	first   uint64
	end     uint64
	weight  int
	evicted uint64 // sequence of the last record that was dropped
}

func (h *history) at(position uint64) *record { return h.ring[position&uint64(len(h.ring)-1)] }

// last returns the sequence of the newest record there ever was.
func (h *history) last() uint64 {
	if h.first == h.end {
		return h.evicted
	}
	return h.at(h.end - 1).sequence
}

// append adds r and drops the oldest records beyond the limits, never r itself.
func (h *history) append(r *record) {
	if h.end-h.first == uint64(len(h.ring)) {
		h.grow()
	}
	h.ring[h.end&uint64(len(h.ring)-1)] = r
	h.end++
	h.weight += r.weight
	for h.end-h.first > 1 && (h.end-h.first > uint64(h.limits.Events) || h.weight > h.limits.Bytes) {
		oldest := h.at(h.first)
		h.ring[h.first&uint64(len(h.ring)-1)] = nil
		h.weight -= oldest.weight
		h.evicted = oldest.sequence
		h.first++
		if h.dropped != nil {
			h.dropped(oldest)
		}
	}
}

func (h *history) grow() {
	ring := make([]*record, max(8, 2*len(h.ring)))
	for p := h.first; p < h.end; p++ {
		ring[p&uint64(len(ring)-1)] = h.at(p)
	}
	h.ring = ring
}

// copy returns up to n records from position on. The position must not be below first.
func (h *history) copy(position uint64, n int) []*record {
	n = int(min(uint64(n), h.end-position))
	records := make([]*record, n)
	for i := range records {
		records[i] = h.at(position + uint64(i))
	}
	return records
}

// after returns the position of the first record later than sequence. ok is false when one of those has been dropped.
func (h *history) after(sequence uint64) (position uint64, ok bool) {
	if sequence < h.evicted {
		return 0, false
	}
	n := sort.Search(int(h.end-h.first), func(i int) bool { return h.at(h.first+uint64(i)).sequence > sequence })
	return h.first + uint64(n), true
}

// weigh estimates the memory that keeping r costs.
func weigh(r *resourcepb.Resource) int {
	const overhead = 512 // of the structures and the short strings
	m, s := r.GetMetadata(), r.GetSpec()
	n := overhead + len(m.GetId()) + len(s.GetProtoSpec()) + len(s.GetYamlSpec())
	for k, v := range m.GetLabels() {
		n += len(k) + len(v)
	}
	for k, v := range m.GetAnnotations() {
		n += len(k) + len(v)
	}
	for _, f := range m.GetFinalizers() {
		n += len(f)
	}
	return n
}
