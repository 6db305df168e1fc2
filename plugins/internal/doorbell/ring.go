package doorbell

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/sdk"
)

// kept is how many events of a kind are kept.
const kept = 1000

// More than a burst at a time is a storm: of it the gist is written, and what has happened during the pause after it the next time. What more
// has happened to a device is counted in its event. To write an event and remove the oldest costs as much as to hear a hundred notes.
const (
	burst = 100
	gist  = 20
	pause = 100 * time.Millisecond
)

// Event is what generators write for a note: a message of a kind whose ids count up.
type Event interface {
	proto.Message
	GetCount() uint64
}

// Ring writes events of one kind and keeps the last thousand. Only one Reconcile may use it.
type Ring[E Event] struct {
	Type string
	// SetCount says in an event how many rings it stands for.
	SetCount func(event E, count uint64)
	// Same are what events are merged by, the first before the others: those of which one says the same become one.
	Same []func(event E) string

	began     bool
	restarted bool      // an earlier process has been here
	settling  bool      // Incomplete has dealt with the beginning
	settled   bool      // and that is written
	first     uint64    // no event has a smaller id
	last      uint64    // the id of the newest event
	pending   []E       // not yet written
	rested    time.Time // when the next events may be written
}

// Begin waits until the next events may be written. The first call finds out where the ids of an earlier process ended.
func (r *Ring[E]) Begin(ctx context.Context, s *sdk.State) error {
	select {
	case <-time.After(time.Until(r.rested)):
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.began {
		return nil
	}
	events, err := sdk.Fetch[E](ctx, s, r.Type)
	if err != nil {
		return err
	}
	r.began, r.restarted, r.first = true, len(s.Outputs(StatusType)) > 0, 1
	for _, e := range slices.Backward(events) {
		if n, err := strconv.ParseUint(e.GetId(), 10, 64); err == nil {
			r.first, r.last = n, max(r.last, n)
		}
	}
	return nil
}

// Incomplete reports whether the generator is to add an event that says that others may be missing. In the beginning, until something has been
// written, a source that opens leaves a gap only if an earlier process has been here.
func (r *Ring[E]) Incomplete(gap Gap) bool {
	if gap == NoGap || r.settled {
		return gap != NoGap
	}
	said := r.settling
	r.settling = true
	return gap == Lost || r.restarted && !said
}

// Add has an event written with the next Write.
func (r *Ring[E]) Add(event E) { r.pending = append(r.pending, event) }

// Merge counts events in others that are about the same when there are more than may be written at a time, and returns how many.
func (r *Ring[E]) Merge() (merged uint64) {
	if len(r.pending) <= burst {
		return 0
	}
	r.rested = time.Now().Add(pause)
	r.pending, merged = r.merge(r.pending, gist)
	return merged
}

// Write writes what was added, and removes what is too old. After an error the next Write goes on.
func (r *Ring[E]) Write(ctx context.Context, s *sdk.State) error {
	for len(r.pending) > 0 {
		if err := s.Write(ctx, r.Type, ID(r.last+1), r.pending[0], nil); err != nil {
			return err
		}
		r.last++
		r.pending = r.pending[1:]
	}
	r.settled = r.settling
	for ; r.last >= r.first+kept; r.first++ {
		if err := s.Delete(ctx, r.Type, ID(r.first)); err != nil {
			return err
		}
	}
	return nil
}

// ID of an event: as text they are in the order of their numbers.
func ID(n uint64) string { return fmt.Sprintf("%012d", n) }

// merge leaves at most so many events: by each of Same, from the oldest on, one that is the same as a later one is counted in that. It
// returns how many were merged. What is in no other event stays, so that it may leave more.
func (r *Ring[E]) merge(events []E, most int) (left []E, merged uint64) {
	for _, same := range r.Same {
		excess := len(events) - most
		if excess <= 0 {
			break
		}
		newest := map[string]int{}
		for i, e := range events {
			newest[same(e)] = i
		}
		left = nil
		for i, e := range events {
			into := newest[same(e)]
			if excess == 0 || into == i {
				left = append(left, e)
				continue
			}
			r.SetCount(events[into], max(events[into].GetCount(), 1)+max(e.GetCount(), 1))
			merged++
			excess--
		}
		events = left
	}
	return events, merged
}

// OfDevice merges events that say the same of the same device, and if that is not enough, whatever is said of a device.
func OfDevice[E interface {
	GetAction() string
	GetDevice() string
}]() []func(E) string {
	return []func(E) string{func(e E) string { return e.GetDevice() + " " + e.GetAction() }, E.GetDevice}
}
