package server

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

func event(n, size int) *state.Event {
	return &state.Event{
		EventType: resourcepb.EventType_UPDATED,
		Resource:  &resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: fmt.Sprint(n)}, Spec: &resourcepb.Spec{ProtoSpec: make([]byte, size)}},
		Bookmark:  []byte("0123456789abcdef"),
	}
}

func TestAnEventIsEncodedOnce(t *testing.T) {
	c := newEncoder()
	e := event(1, 10)
	first, err := c.encode(e)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if &first[0] != &second[0] {
		t.Error("the second watcher's bytes are another copy")
	}
}

func TestEncodedEventsAreAWatchResponse(t *testing.T) {
	c := newEncoder()
	want := &resourcepb.WatchResponse{Event: []*state.Event{event(1, 0), event(2, 1000), {EventType: resourcepb.EventType_CREATED}}}
	var f frame
	for _, e := range want.GetEvent() {
		data, err := c.encode(e)
		if err != nil {
			t.Fatal(err)
		}
		f.add(data)
	}
	got := &resourcepb.WatchResponse{}
	if err := proto.Unmarshal(f.buffers.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) || f.size != proto.Size(want) {
		t.Errorf("frame of %d bytes holds %v; want %d bytes with %v", f.size, got, proto.Size(want), want)
	}
}

func TestEncodingsAreKeptWithinBounds(t *testing.T) {
	for name, size := range map[string]int{"many": 1, "large": keepBytes / 4, "larger than all that is kept": 2 * keepBytes} {
		c := newEncoder()
		for n := range 2 * keepEvents {
			if size > 1 && n == 20 {
				break
			}
			if _, err := c.encode(event(n, size)); err != nil {
				t.Fatal(err)
			}
		}
		held := 0
		for _, data := range c.known {
			held += len(data)
		}
		if len(c.known) > keepEvents || held > keepBytes || held != c.bytes || len(c.order) != len(c.known) {
			t.Errorf("%s: %d encodings of %d bytes (counted: %d of %d)", name, len(c.known), held, len(c.order), c.bytes)
		}
	}
}

func TestEventsForOneWatcherAreNotKept(t *testing.T) {
	c := newEncoder()
	if _, err := c.encode(&state.Event{Resource: &resourcepb.Resource{}}); err != nil {
		t.Fatal(err)
	}
	if len(c.known) != 0 {
		t.Errorf("%d encodings are kept; want none", len(c.known))
	}
}

func BenchmarkEncode(b *testing.B) {
	b.Run("for the first watcher", func(b *testing.B) {
		e := event(1, 200)
		for b.Loop() {
			if _, err := encoded.Event(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("for the others", func(b *testing.B) {
		c, e := newEncoder(), event(1, 200)
		for b.Loop() {
			if _, err := c.encode(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
