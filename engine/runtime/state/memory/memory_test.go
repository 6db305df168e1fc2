package memory_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
)

var logs = state.Kind{Namespace: "logs", Type: "Logs.service.cosi.dev"}

func TestStoreIsAState(t *testing.T) {
	statetest.RunStore(t, func(*testing.T) state.State {
		return memory.New(memory.Options{Limits: func(state.Kind) memory.Limits { return memory.Limits{Events: statetest.HistoryEvents} }})
	})
}

func TestStoreWithATailForEachIDIsAState(t *testing.T) {
	statetest.RunStore(t, func(*testing.T) state.State {
		return memory.New(memory.Options{Limits: func(state.Kind) memory.Limits {
			return memory.Limits{Events: statetest.HistoryEvents, EventsOfID: 8}
		}})
	})
}

func line(id, text string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: logs.Namespace, Type: logs.Type, Id: id},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte(text)},
	}
}

// write creates r or updates what is there.
func write(t testing.TB, s *memory.Store, r *resourcepb.Resource) {
	t.Helper()
	if current := s.Lookup(state.PointerTo(r)); current != nil {
		r.Metadata.Version = current.GetMetadata().GetVersion()
		if _, err := s.Update(t.Context(), r, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, err := s.Create(t.Context(), r, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestTheTailOfAQuietIDSurvivesABusyOne(t *testing.T) {
	for name, c := range map[string]struct {
		ofID int
		want []string
	}{
		"kept for each id":  {4, []string{"quiet 2", "quiet 3"}},
		"kept for the kind": {0, nil},
	} {
		s := memory.New(memory.Options{Limits: func(state.Kind) memory.Limits { return memory.Limits{Events: 10, EventsOfID: c.ofID} }})
		for i := range 4 {
			write(t, s, line("quiet", fmt.Sprintf("quiet %d", i)))
		}
		for i := range 100 {
			write(t, s, line("busy", strconv.Itoa(i)))
		}
		w := watch(t, s, state.WatchRequest{Kind: logs, ID: proto.String("quiet"), TailEvents: 2})
		write(t, s, line("quiet", "live"))
		for _, want := range append(c.want, "live") {
			if got := content(w.next(t)); got != want {
				t.Errorf("%s: line %q; want %q", name, got, want)
			}
		}
	}
}

// reader reads a watch event by event.
type reader struct {
	state.Watch
	ready []*state.Event
}

func watch(t testing.TB, s *memory.Store, request state.WatchRequest) *reader {
	t.Helper()
	w, err := s.Watch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{Watch: w}
}

func (r *reader) next(t testing.TB) *state.Event {
	t.Helper()
	if len(r.ready) == 0 {
		events, err := r.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.ready = events
	}
	e := r.ready[0]
	r.ready = r.ready[1:]
	return e
}

func content(e *state.Event) string { return string(e.GetResource().GetSpec().GetProtoSpec()) }

func TestHistoryIsBoundedInBytes(t *testing.T) {
	s := memory.New(memory.Options{Limits: func(state.Kind) memory.Limits { return memory.Limits{Bytes: 10 << 10} }})
	for i := range 20 {
		write(t, s, line("a", strconv.Itoa(i)+string(bytes.Repeat([]byte("x"), 1<<10))))
	}
	events, err := watch(t, s, state.WatchRequest{Kind: logs, TailEvents: 100}).Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(events) < 4 || len(events) > 10 {
		t.Errorf("the history holds %d events of more than 1 KiB; want at most 10, and not many fewer", len(events))
	}
}

func TestWatchersShareEvents(t *testing.T) {
	s := memory.New(memory.Options{})
	labelled := state.Query{Labels: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{{Key: "on"}}}}}
	for _, requests := range [][2]state.WatchRequest{
		{{Kind: logs}, {Kind: logs, ID: proto.String("a")}},
		{{Kind: logs, Query: labelled}, {Kind: logs, Query: labelled}},
	} {
		first, second := watch(t, s, requests[0]), watch(t, s, requests[1])
		if requests[1].ID != nil {
			second.next(t) // the tombstone is its own
		}
		write(t, s, line("a", "off"))
		on := line("a", "on")
		on.Metadata.Labels = map[string]string{"on": ""}
		write(t, s, on)
		write(t, s, line("a", "off"))
		for range 2 {
			if one, two := first.next(t), second.next(t); one != two {
				t.Errorf("two watchers got %v and %v; want one event", one, two)
			}
		}
		if err := s.Destroy(t.Context(), state.PointerTo(on), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEachStoreHasAnEpochOfItsOwn(t *testing.T) {
	first, second := memory.New(memory.Options{}), memory.New(memory.Options{})
	if len(first.Epoch()) != memory.EpochSize || bytes.Equal(first.Epoch(), second.Epoch()) {
		t.Errorf("epochs %x and %x; want two of %d bytes", first.Epoch(), second.Epoch(), memory.EpochSize)
	}
	bookmark := watch(t, first, state.WatchRequest{Kind: logs, BootstrapBookmark: true}).next(t).GetBookmark()
	if !bytes.Equal(bookmark[:memory.EpochSize], first.Epoch()) {
		t.Errorf("bookmark %x; want the epoch %x first", bookmark, first.Epoch())
	}
	if _, err := second.Watch(t.Context(), state.WatchRequest{Kind: logs, Bookmark: bookmark}); !errors.Is(err, state.ErrBookmark) {
		t.Errorf("Watch from another store's bookmark = %v; want ErrBookmark", err)
	}
}

func TestTheClockIsTheStores(t *testing.T) {
	now := time.Date(1970, 1, 1, 0, 0, 7, 0, time.UTC)
	s := memory.New(memory.Options{Now: func() time.Time { return now }})
	r, err := s.Create(t.Context(), line("a", ""), state.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.GetMetadata().GetCreated().AsTime(); !got.Equal(now) {
		t.Errorf("created %v; want %v", got, now)
	}
}

// Watchers resume from every kind of interruption while writers write: each sees each commit once.
func TestResumingWatchersLoseAndDoubleNothing(t *testing.T) {
	const writes, watchers = 2000, 4
	s := memory.New(memory.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	bookmark := watch(t, s, state.WatchRequest{Kind: logs, BootstrapBookmark: true}).next(t).GetBookmark()

	var all sync.WaitGroup
	for n := range watchers {
		all.Go(func() { resume(ctx, t, s, bookmark, writes, n+1) })
	}
	for i := range writes {
		write(t, s, line("a", strconv.Itoa(i)))
	}
	all.Wait()
}

// resume reads writes events, with a new watch after every some batches.
func resume(ctx context.Context, t *testing.T, s *memory.Store, bookmark []byte, writes, batches int) {
	seen := 0
	for seen < writes {
		w, err := s.Watch(ctx, state.WatchRequest{Kind: logs, Bookmark: bookmark})
		if err != nil {
			t.Error(err)
			return
		}
		for range batches {
			if seen == writes {
				return
			}
			events, err := w.Next(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for _, e := range events {
				if got := content(e); got != strconv.Itoa(seen) {
					t.Errorf("event %q; want %d", got, seen)
					return
				}
				seen++
				bookmark = e.GetBookmark()
			}
		}
	}
}
