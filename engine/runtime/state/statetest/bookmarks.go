package statetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

var resuming = []Rule{
	{Name: "A bookmark is an epoch of 8 bytes and a sequence of 8 bytes, one for all kinds", Extended: true, check: func(f *fixture) {
		things, others := f.watch(state.WatchRequest{}), f.watch(state.WatchRequest{Kind: otherKind})
		f.create(thing("a"))
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Type = otherKind.Type }))
		f.create(thing("b"))
		marks := [][]byte{
			things.expect("CREATED a@1*").GetBookmark(), others.expect("CREATED a@1*").GetBookmark(), things.expect("CREATED b@1*").GetBookmark(),
		}
		for i, mark := range marks {
			if len(mark) != 16 {
				f.Fatalf("bookmark %x has %d bytes; want 16", mark, len(mark))
			}
			if !bytes.Equal(mark[:8], marks[0][:8]) {
				f.Errorf("epoch %x; want %x", mark[:8], marks[0][:8])
			}
			if got, want := binary.BigEndian.Uint64(mark[8:]), binary.BigEndian.Uint64(marks[0][8:])+uint64(i); got != want {
				f.Errorf("sequence %d; want %d", got, want)
			}
		}
	}},
	{Name: "A watch goes on after any bookmark, whatever event or kind it came from", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{BootstrapContents: true})
		marks := [][]byte{w.expect("BOOTSTRAPPED @undefined*").GetBookmark()}
		r := f.create(thing("a"))
		marks = append(marks, w.expect("CREATED a@1*").GetBookmark())
		others := f.watch(state.WatchRequest{Kind: otherKind})
		f.create(edited(thing("x"), func(m *resourcepb.Metadata) { m.Type = otherKind.Type }))
		other := others.expect("CREATED x@1*").GetBookmark()
		f.update(r)
		marks = append(marks, w.expect("UPDATED a@2<1*").GetBookmark())
		f.destroy("a")
		all := []string{"CREATED a@1*", "UPDATED a@2<1*", "DESTROYED a@2*"}
		for i, mark := range marks {
			f.watch(state.WatchRequest{Bookmark: mark}).expect(all[i:]...)
		}
		f.watch(state.WatchRequest{Bookmark: other}).expect(all[1:]...)
	}},
	{Name: "A watch from the newest bookmark waits for the next event", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{})
		f.create(thing("a"))
		resumed := f.watch(state.WatchRequest{Bookmark: w.expect("CREATED a@1*").GetBookmark()})
		f.create(thing("b"))
		resumed.expect("CREATED b@1*")
	}},
	{Name: "A query holds after a bookmark too", check: func(f *fixture) {
		mark := f.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		r := f.create(thing("a", "x=1"))
		f.create(thing("b"))
		f.update(edited(r, func(m *resourcepb.Metadata) { m.Labels = nil }))
		f.watch(state.WatchRequest{Bookmark: mark, Query: state.Query{
			Labels: []*resourcepb.LabelQuery{labels(term("x", resourcepb.LabelTerm_EXISTS))},
		}}).expect("CREATED a@1*", "DESTROYED a@2*")
	}},
	{Name: "A bookmark that is malformed, foreign or still to come is refused", check: func(f *fixture) {
		mark := f.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		foreign := bytes.Clone(mark)
		foreign[0] ^= 1
		future := bytes.Clone(mark)
		future[8] ^= 1
		for name, bad := range map[string][]byte{"empty": {}, "short": mark[:15], "long": append(bytes.Clone(mark), 0), "foreign": foreign, "future": future} {
			_, err := f.Watch(f.ctx, state.WatchRequest{Kind: kind, Bookmark: bad})
			f.fails("Watch from a bookmark that is "+name, err, state.ErrBookmark)
		}
	}},
	{Name: "A bookmark older than the history has expired", Outruns: true, check: func(f *fixture) {
		mark := f.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		r := f.create(thing("a"))
		for range f.history - 1 {
			r = f.update(r)
		}
		f.watch(state.WatchRequest{Bookmark: mark}).expect("CREATED a@1*", "UPDATED a@2<1*")
		f.update(r)
		_, err := f.Watch(f.ctx, state.WatchRequest{Kind: kind, Bookmark: mark})
		f.fails("Watch", err, state.ErrBookmark)
		w := f.watch(state.WatchRequest{TailEvents: 2 * f.history})
		w.expect("UPDATED a@2<1*")
	}},
	{Name: "Other kinds do not age a bookmark", Extended: true, Outruns: true, check: func(f *fixture) {
		mark := f.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		r := f.create(edited(thing("x"), func(m *resourcepb.Metadata) { m.Type = otherKind.Type }))
		for range 2 * f.history {
			r = f.update(r)
		}
		f.create(thing("a"))
		f.watch(state.WatchRequest{Bookmark: mark}).expect("CREATED a@1*")
	}},
}

var failing = []Rule{
	{Name: "A slow watcher stalls no writer, gets ERRORED, then ErrSlow, and can resume", Extended: true, Outruns: true, check: func(f *fixture) {
		slow := f.watch(state.WatchRequest{})
		// Larger than what a connection takes in without being read.
		r := thing("a")
		r.Spec = &resourcepb.Spec{ProtoSpec: bytes.Repeat([]byte("x"), 32<<10)}
		r = f.create(r)
		writes := 4 * f.history
		for range writes {
			r = f.update(r)
		}
		version := 0
		for {
			e := slow.next()
			if e.GetEventType() == resourcepb.EventType_ERRORED {
				if e.GetError() == "" || e.GetResource().GetMetadata().GetType() != kind.Type {
					f.Errorf("event %v; want the reason and the kind", e)
				}
				break
			}
			version++
			f.equal("version", e.GetResource().GetMetadata().GetVersion(), strconv.Itoa(version))
			if version > writes {
				f.Fatalf("the watcher saw every event: it was not slow")
			}
		}
		for range 2 {
			if _, err := slow.watch.Next(f.ctx); !errors.Is(err, state.ErrSlow) {
				f.Fatalf("Next() = %v; want ErrSlow", err)
			}
		}
		f.watch(state.WatchRequest{TailEvents: 1}).expect("UPDATED a@" + strconv.Itoa(writes+1) + "<" + strconv.Itoa(writes) + "*")
	}},
	{Name: "A watcher that reads is not slow, however much is written", Outruns: true, check: func(f *fixture) {
		w := f.watch(state.WatchRequest{})
		r := f.create(thing("a"))
		w.expect("CREATED a@1*")
		for n := 2; n < 3*f.history; n++ {
			r = f.update(r)
			w.expect("UPDATED a@" + strconv.Itoa(n) + "<" + strconv.Itoa(n-1) + "*")
		}
	}},
	{Name: "Errors name the resource", Extended: true, check: func(f *fixture) {
		_, err := f.Get(f.ctx, pointer("missing"))
		if err == nil || !strings.Contains(err.Error(), pointer("missing").String()) {
			f.Errorf("Get = %v; want an error that holds %q", err, pointer("missing"))
		}
		err = f.Destroy(f.ctx, pointer("missing"), state.WriteOptions{})
		if err == nil || !strings.Contains(err.Error(), pointer("missing").String()) {
			f.Errorf("Destroy = %v; want an error that holds %q", err, pointer("missing"))
		}
	}},
}
