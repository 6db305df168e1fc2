package memory

import (
	"context"
	"fmt"
	"slices"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// batch is the most records that a watcher looks at in one go.
const batch = 256

// watch reads a kind's history from a position of its own. Nothing is queued for it and the store does not know it: a watch that is
// no longer read is garbage, and one that is read too slowly finds its position gone.
//
//	first events ──> live ──(position dropped)──> ERRORED ──> ErrSlow
type watch struct {
	ctx      context.Context // the caller's: the watch ends with it
	kind     *kind
	id       *string
	selector *state.Selector

	first []*state.Event // before any of the history
	next  uint64         // position in the history
	ended error
}

// Watch starts a watch. See state.State.
func (t *Table) Watch(ctx context.Context, request state.WatchRequest) (state.Watch, error) {
	selector, err := request.Compile()
	if err != nil {
		return nil, err
	}
	if t.kind(request.Kind) == nil {
		if err := t.roomForKind(); err != nil {
			return nil, err
		}
	}
	k := t.makeKind(request.Kind)
	w := &watch{ctx: ctx, kind: k, id: request.ID, selector: selector}
	switch {
	case request.Bookmark != nil:
		err = w.fromBookmark(t, request)
	case request.TailEvents > 0:
		w.fromTail(t, request)
	case request.ID != nil:
		w.fromOne(t, request)
	default:
		w.fromKind(t, request)
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// fromBookmark goes on after the position that the bookmark names.
func (w *watch) fromBookmark(t *Table, request state.WatchRequest) error {
	sequence, err := t.epoch.sequence(request.Bookmark)
	if err != nil {
		return err
	}
	if sequence > t.sequence.Load() {
		return fmt.Errorf("%w: commit %d is still to come", state.ErrBookmark, sequence)
	}
	w.kind.mu.RLock()
	defer w.kind.mu.RUnlock()
	next, ok := w.kind.history.after(sequence)
	if !ok {
		return fmt.Errorf("%w: the history no longer has what followed commit %d", state.ErrBookmark, sequence)
	}
	w.next = next
	if request.BootstrapBookmark {
		w.first = append(w.first, w.kind.noop(request.Bookmark))
	}
	return nil
}

// fromTail starts with the last events that the watch would have seen.
func (w *watch) fromTail(t *Table, request state.WatchRequest) {
	k := w.kind
	k.mu.RLock()
	records, before := k.tail(request.ID)
	w.next = k.history.end
	k.mu.RUnlock()

	var tail []*state.Event // newest first
	for _, r := range slices.Backward(records) {
		if len(tail) == request.TailEvents {
			break
		}
		before = r.sequence - 1
		if event := w.see(r); event != nil {
			tail = append(tail, event)
		}
	}
	if request.BootstrapBookmark {
		tail = append(tail, k.noop(t.epoch.bookmark(before)))
	}
	slices.Reverse(tail)
	w.first = tail
}

// tail returns the records that a tail is taken from, and the last sequence that is not among them. k.mu is held.
func (k *kind) tail(id *string) (records []*record, before uint64) {
	h := &k.history
	if id != nil {
		if e := k.byID[*id]; e != nil && e.history != nil {
			h = e.history
		}
	}
	return h.copy(h.first, int(h.end-h.first)), k.history.last()
}

// fromOne starts with one resource as it is, or with a tombstone.
func (w *watch) fromOne(t *Table, request state.WatchRequest) {
	k := w.kind
	k.mu.RLock()
	defer k.mu.RUnlock()
	w.next = k.history.end
	if e := k.byID[*request.ID]; e != nil {
		w.first = append(w.first, created(e.Message()))
	} else {
		w.first = append(w.first, &state.Event{EventType: resourcepb.EventType_DESTROYED, Resource: k.nothing(*request.ID)})
	}
	if request.BootstrapBookmark {
		w.first = append(w.first, k.noop(t.epoch.bookmark(k.history.last())))
	}
}

// fromKind starts with the next change, after the contents if they are asked for.
func (w *watch) fromKind(t *Table, request state.WatchRequest) {
	k := w.kind
	var begin moment
	if request.BootstrapContents {
		var contents []encoded.Resource
		contents, begin = k.candidates(request.Query)
		for _, r := range selected(contents, w.selector) {
			w.first = append(w.first, created(r.Message()))
		}
		w.first = append(w.first, &state.Event{
			EventType: resourcepb.EventType_BOOTSTRAPPED, Resource: k.nothing(""), Bookmark: t.epoch.bookmark(begin.sequence),
		})
	} else {
		k.mu.RLock()
		begin = k.now()
		k.mu.RUnlock()
	}
	w.next = begin.position
	if request.BootstrapBookmark {
		w.first = append(w.first, k.noop(t.epoch.bookmark(begin.sequence)))
	}
}

// Next waits for events. See state.Watch. One goroutine at a time calls it.
func (w *watch) Next(ctx context.Context) ([]*state.Event, error) {
	if w.ended != nil {
		return nil, w.ended
	}
	if first := w.first; len(first) > 0 {
		w.first = nil
		return first, nil
	}
	for {
		if err := w.wait(ctx); err != nil {
			return nil, err
		}
		records, slow := w.read()
		if slow {
			w.ended = fmt.Errorf("%s: %w", w.kind.name, state.ErrSlow)
			text := w.ended.Error()
			return []*state.Event{{EventType: resourcepb.EventType_ERRORED, Resource: w.kind.nothing(""), Error: &text}}, nil
		}
		events := make([]*state.Event, 0, len(records))
		for _, r := range records {
			if event := w.see(r); event != nil {
				events = append(events, event)
			}
		}
		if len(events) > 0 {
			return events, nil
		}
	}
}

// wait returns when there is something at the watch's position, or one of the two contexts is done.
func (w *watch) wait(ctx context.Context) error {
	for {
		changed := w.kind.wait(w.next)
		if changed == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			return w.ctx.Err()
		}
		if err := w.sleep(ctx, changed); err != nil {
			return err
		}
	}
}

// sleep waits for changed, or for the end of one of the two contexts. For a caller over the network they are one, and to wait for two things
// costs a thousand watchers less than to wait for three.
func (w *watch) sleep(ctx context.Context, changed <-chan struct{}) error {
	if ctx == w.ctx {
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// wait returns what is closed at the next change, nil if the history has gone beyond position already.
func (k *kind) wait(position uint64) <-chan struct{} {
	k.mu.RLock()
	there, changed := k.history.end > position, k.changed
	k.mu.RUnlock()
	if there {
		return nil
	}
	if changed != nil { // one of those who wait already made it
		return changed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.history.end > position {
		return nil
	}
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return k.changed
}

// read takes the next records from the history.
func (w *watch) read() (records []*record, slow bool) {
	w.kind.mu.RLock()
	defer w.kind.mu.RUnlock()
	h := &w.kind.history
	if w.next < h.first {
		return nil, true
	}
	records = h.copy(w.next, batch)
	w.next += uint64(len(records))
	return records, false
}

// see returns what of r this watch shows, nil for nothing. A resource that begins to match its query is created, one that ceases to
// is destroyed.
func (w *watch) see(r *record) *state.Event {
	event := r.event
	if w.id != nil {
		if event.GetResource().GetMetadata().GetId() != *w.id {
			return nil
		}
		return event
	}
	if w.selector.All() {
		return event
	}
	is := w.selector.Matches(encoded.Of(event.GetResource()))
	was := is
	if event.GetOld() != nil {
		was = w.selector.Matches(encoded.Of(event.GetOld()))
	}
	switch {
	case is && was:
		return event
	case is:
		entering, _ := r.transitions()
		return entering
	case was:
		_, leaving := r.transitions()
		return leaving
	}
	return nil
}

func created(r *resourcepb.Resource) *state.Event {
	return &state.Event{EventType: resourcepb.EventType_CREATED, Resource: r}
}

func (k *kind) noop(bookmark []byte) *state.Event {
	return &state.Event{EventType: resourcepb.EventType_NOOP, Resource: k.nothing(""), Bookmark: bookmark}
}

// nothing is the resource of an event that has none: clients insist on a version and a phase.
func (k *kind) nothing(id string) *resourcepb.Resource {
	return &resourcepb.Resource{Metadata: &resourcepb.Metadata{
		Namespace: k.name.Namespace, Type: k.name.Type, Id: id, Version: state.VersionUndefined, Phase: state.PhaseRunning,
	}}
}
