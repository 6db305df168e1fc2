package statetest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Silence is tested without waiting: whatever must not come would have come before the event of a later write.

var watchingOne = []Rule{
	{Name: "A watch of one resource starts with what is there, without bookmark", check: func(f *fixture) {
		r := f.create(thing("a"))
		w := f.watch(state.WatchRequest{ID: proto.String("a")})
		if e := w.expect("CREATED a@1"); !proto.Equal(e.GetResource(), r) {
			f.Errorf("event with %v; want %v", e.GetResource(), r)
		}
		f.update(r)
		w.expect("UPDATED a@2<1*")
	}},
	{Name: "A watch of nothing starts with a tombstone, without bookmark", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{ID: proto.String("a")})
		m := w.expect("DESTROYED a@undefined").GetResource().GetMetadata()
		f.equal("kind", state.Kind{Namespace: m.GetNamespace(), Type: m.GetType()}, kind)
		f.create(thing("a"))
		w.expect("CREATED a@1*")
	}},
	{Name: "A watch of one resource does not see the others", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{ID: proto.String("a")})
		w.expect("DESTROYED a@undefined")
		f.create(thing("b"))
		f.create(thing("aa"))
		f.create(thing("a"))
		f.destroy("b")
		f.destroy("a")
		w.expect("CREATED a@1*", "DESTROYED a@1*")
	}},
	{Name: "A watch of one resource takes neither contents nor queries", check: func(f *fixture) {
		for _, w := range []state.WatchRequest{
			{BootstrapContents: true},
			{Query: state.Query{Labels: []*resourcepb.LabelQuery{labels(term("x", resourcepb.LabelTerm_EXISTS))}}},
		} {
			w.Kind, w.ID = kind, proto.String("a")
			_, err := f.Watch(f.ctx, w)
			f.fails(fmt.Sprintf("Watch(%+v)", w), err, state.ErrUnimplemented)
		}
	}},
	{Name: "The tail of one resource is its own last events, then the live ones", check: func(f *fixture) {
		r := f.create(thing("a"))
		other := f.create(thing("b"))
		for range 3 {
			r, other = f.update(r), f.update(other)
		}
		w := f.watch(state.WatchRequest{ID: proto.String("a"), TailEvents: 2})
		f.update(r)
		w.expect("UPDATED a@3<2*", "UPDATED a@4<3*", "UPDATED a@5<4*")
	}},
	{Name: "The tail of a resource that never was is empty and suppresses the tombstone", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{ID: proto.String("a"), TailEvents: 2})
		f.create(thing("a"))
		w.expect("CREATED a@1*")
	}},
	{Name: "A watch of one resource goes on after a bookmark, without the present state", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{ID: proto.String("a")})
		w.expect("DESTROYED a@undefined")
		r := f.create(thing("a"))
		bookmark := w.expect("CREATED a@1*").GetBookmark()
		f.update(r)
		f.create(thing("b"))
		f.destroy("a")
		f.watch(state.WatchRequest{ID: proto.String("a"), Bookmark: bookmark}).expect("UPDATED a@2<1*", "DESTROYED a@2*")
	}},
}

var watchingKinds = []Rule{
	{Name: "A watch of a kind is silent until something changes", check: func(f *fixture) {
		f.create(thing("a"))
		w := f.watch(state.WatchRequest{})
		f.create(thing("b"))
		w.expect("CREATED b@1*")
	}},
	{Name: "Every live event has a bookmark, and old is set on updates only", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{})
		r := f.create(withFinalizers(thing("a"), "one"))
		second := f.update(r)
		_, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
		f.fails("Teardown", err, nil)
		f.update(withFinalizers(f.get("a")))
		f.destroy("a")
		w.expect("CREATED a@1*")
		if e := w.expect("UPDATED a@2<1*"); !proto.Equal(e.GetOld(), r) || !proto.Equal(e.GetResource(), second) {
			f.Errorf("event from %v to %v; want from %v to %v", e.GetOld(), e.GetResource(), r, second)
		}
		e := w.expect("UPDATED a@3<2*")
		f.equal("phase", e.GetResource().GetMetadata().GetPhase(), state.PhaseTearingDown)
		w.expect("UPDATED a@4<3*", "DESTROYED a@4*")
	}},
	{Name: "What is refused or a dry run makes no event", Extended: true, check: func(f *fixture) {
		r := f.create(withFinalizers(thing("a"), "one"))
		w := f.watch(state.WatchRequest{})
		dry := state.WriteOptions{DryRun: true}
		f.Create(f.ctx, thing("a"), state.WriteOptions{})
		f.Create(f.ctx, thing("b"), dry)
		f.Update(f.ctx, r, dry)
		f.Update(f.ctx, r, state.WriteOptions{Owner: "mount"})
		f.Teardown(f.ctx, pointer("a"), dry)
		f.Destroy(f.ctx, pointer("a"), state.WriteOptions{})
		f.create(thing("last"))
		w.expect("CREATED last@1*")
	}},
	{Name: "A repeated teardown makes no event", check: func(f *fixture) {
		f.create(thing("a"))
		w := f.watch(state.WatchRequest{})
		for range 2 {
			_, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
			f.fails("Teardown", err, nil)
		}
		f.destroy("a")
		w.expect("UPDATED a@2<1*", "DESTROYED a@2*")
	}},
	{Name: "A watch of a kind does not see other kinds", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{})
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Type = otherKind.Type }))
		f.create(thing("b"))
		w.expect("CREATED b@1*")
	}},
	{Name: "Contents come in the order of their ids, then BOOTSTRAPPED with a bookmark", check: func(f *fixture) {
		f.create(thing("b"))
		f.update(f.create(thing("c")))
		f.create(thing("a"))
		w := f.watch(state.WatchRequest{BootstrapContents: true})
		m := w.expect("CREATED a@1", "CREATED b@1", "CREATED c@2", "BOOTSTRAPPED @undefined*").GetResource().GetMetadata()
		f.equal("kind", state.Kind{Namespace: m.GetNamespace(), Type: m.GetType()}, kind)
		f.destroy("b")
		w.expect("DESTROYED b@1*")
	}},
	{Name: "The contents of an empty kind are BOOTSTRAPPED alone", check: func(f *fixture) {
		f.watch(state.WatchRequest{BootstrapContents: true}).expect("BOOTSTRAPPED @undefined*")
	}},
	{Name: "The bootstrap bookmark comes first as NOOP", check: func(f *fixture) {
		f.create(thing("a"))
		w := f.watch(state.WatchRequest{BootstrapBookmark: true})
		bookmark := w.expect("NOOP @undefined*").GetBookmark()
		f.create(thing("b"))
		w.expect("CREATED b@1*")
		f.watch(state.WatchRequest{Bookmark: bookmark}).expect("CREATED b@1*")
	}},
	{Name: "Contents, tail and bookmark exclude each other", check: func(f *fixture) {
		bookmark := f.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		for _, w := range []state.WatchRequest{
			{BootstrapContents: true, TailEvents: 1}, {BootstrapContents: true, Bookmark: bookmark}, {TailEvents: 1, Bookmark: bookmark}, {TailEvents: -1},
		} {
			w.Kind = kind
			_, err := f.Watch(f.ctx, w)
			f.fails(fmt.Sprintf("Watch(%+v)", w), err, state.ErrInvalid)
		}
	}},
	{Name: "The tail is the last events of the history, then the live ones", check: func(f *fixture) {
		r := f.create(thing("a"))
		f.create(thing("b"))
		f.destroy("b")
		w := f.watch(state.WatchRequest{TailEvents: 2})
		f.update(r)
		w.expect("CREATED b@1*", "DESTROYED b@1*", "UPDATED a@2<1*")
		f.watch(state.WatchRequest{TailEvents: 1000}).expect("CREATED a@1*", "CREATED b@1*", "DESTROYED b@1*", "UPDATED a@2<1*")
	}},
	{Name: "With a label query, to begin to match is CREATED and to cease DESTROYED", check: func(f *fixture) {
		yes := state.Query{Labels: []*resourcepb.LabelQuery{labels(term("on", resourcepb.LabelTerm_EQUAL, "yes"))}}
		w := f.watch(state.WatchRequest{Query: yes})
		switched := func(r *resourcepb.Resource, on string) *resourcepb.Resource {
			return f.update(edited(r, func(m *resourcepb.Metadata) { m.Labels = map[string]string{"on": on} }))
		}
		r := f.create(thing("a", "on=no"))
		r = switched(r, "yes")
		r = switched(r, "yes")
		r = switched(r, "no")
		switched(r, "no")
		f.destroy("a")
		f.create(thing("b", "on=yes"))
		f.destroy("b")
		w.expect("CREATED a@2*", "UPDATED a@3<2*", "DESTROYED a@4*", "CREATED b@1*", "DESTROYED b@1*")
		f.watch(state.WatchRequest{Query: yes, TailEvents: 3}).expect("DESTROYED a@4*", "CREATED b@1*", "DESTROYED b@1*")
	}},
	{Name: "Contents are those that match the query", check: func(f *fixture) {
		f.create(thing("a", "x=1"))
		f.create(thing("b"))
		f.create(thing("c", "x=1"))
		w := f.watch(state.WatchRequest{BootstrapContents: true, Query: state.Query{
			Labels: []*resourcepb.LabelQuery{labels(term("x", resourcepb.LabelTerm_EXISTS))}, IDRegexp: "[ab]",
		}})
		w.expect("CREATED a@1", "BOOTSTRAPPED @undefined*")
	}},
	{Name: "With an id query only what it selects is seen", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{Query: state.Query{IDRegexp: "^sd"}})
		f.create(thing("vda"))
		f.update(f.create(thing("sda")))
		f.destroy("vda")
		f.destroy("sda")
		w.expect("CREATED sda@1*", "UPDATED sda@2<1*", "DESTROYED sda@2*")
	}},
	{Name: "Several watchers see all events of concurrent writers once, in one order", check: func(f *fixture) {
		const writers, writes, watchers = 4, 12, 3 // fewer events than the history holds
		var all []*watcher
		for range watchers {
			all = append(all, f.watch(state.WatchRequest{}))
		}
		var writing sync.WaitGroup
		for i := range writers {
			writing.Go(func() {
				r, err := f.Create(f.ctx, thing(strconv.Itoa(i)), state.WriteOptions{})
				for n := 1; n < writes && err == nil; n++ {
					r, err = f.Update(f.ctx, r, state.WriteOptions{})
				}
				f.fails("write", err, nil)
			})
		}
		writing.Wait()
		var orders []string
		for _, w := range all {
			orders = append(orders, w.order(writers*writes))
		}
		for _, order := range orders {
			f.equal("order", order, orders[0])
		}
	}},
	{Name: "A watch ends with its context", check: func(f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx)
		w, err := f.Watch(ctx, state.WatchRequest{Kind: kind})
		f.fails("Watch", err, nil)
		cancel()
		_, err = w.Next(f.ctx)
		f.fails("Next", err, context.Canceled)
	}},
}

// order reads n events, checks that each resource's versions come one by one, and returns what came.
func (w *watcher) order(n int) string {
	w.f.Helper()
	var order strings.Builder
	versions := map[string]int{}
	for range n {
		e := w.next()
		id := e.GetResource().GetMetadata().GetId()
		versions[id]++
		if got := e.GetResource().GetMetadata().GetVersion(); got != strconv.Itoa(versions[id]) {
			w.f.Fatalf("event of %s at version %s; want %d", id, got, versions[id])
		}
		fmt.Fprintf(&order, "%s\n", describe(e))
	}
	return order.String()
}
