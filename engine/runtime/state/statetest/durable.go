package statetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// RunDurable checks what a store promises across restarts. store returns how to open one that is empty at first: each call ends the life
// before and begins another with what that left.
func RunDurable(t *testing.T, store func(*testing.T) (reopen func() state.State)) {
	for _, r := range enduring {
		t.Run(r.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			reopen := store(t)
			r.check(&durable{&fixture{T: t, State: reopen(), ctx: ctx, history: HistoryEvents}, reopen})
		})
	}
}

type durable struct {
	*fixture
	reopen func() state.State
}

func (d *durable) restart() { d.State = d.reopen() }

// enduring are the rules of a durable store.
var enduring = []struct {
	name  string
	check func(*durable)
}{
	{"What was acknowledged is there after a restart, to the letter", func(d *durable) {
		r := d.create(withFinalizers(thing("a", "x=1"), "f"))
		d.create(owned("b", "mount"))
		r = d.update(edited(r, func(m *resourcepb.Metadata) { m.Annotations = map[string]string{"y": "2"} }))
		d.create(thing("gone"))
		d.destroy("gone")
		want := fmt.Sprint(r, d.get("b"))
		for range 2 {
			d.restart()
			d.equal("ids", d.ids(state.Query{}), "a b")
			d.equal("resources", fmt.Sprint(d.get("a"), d.get("b")), want)
		}
	}},
	{"Versions and sequences go on", func(d *durable) {
		w := d.watch(state.WatchRequest{})
		r := d.create(thing("a"))
		mark := w.expect("CREATED a@1*").GetBookmark()
		d.restart()
		w = d.watch(state.WatchRequest{})
		d.update(r)
		d.equal("bookmark", bytes.Compare(w.expect("UPDATED a@2<1*").GetBookmark(), mark), 1)
	}},
	{"A bookmark resumes after a restart, with nothing lost or doubled", func(d *durable) {
		w := d.watch(state.WatchRequest{BootstrapContents: true})
		marks := [][]byte{w.expect("BOOTSTRAPPED @undefined*").GetBookmark()}
		all := []string{"CREATED a@1*", "UPDATED a@2<1*", "DESTROYED a@2*", "CREATED b@1*"}
		d.update(d.create(thing("a")))
		d.destroy("a")
		b := d.create(thing("b"))
		for _, want := range all {
			marks = append(marks, w.expect(want).GetBookmark())
		}
		d.restart()
		d.update(b)
		all = append(all, "UPDATED b@2<1*")
		for range 2 {
			for i, mark := range marks {
				d.watch(state.WatchRequest{Bookmark: mark}).expect(all[i:]...)
			}
			d.restart()
		}
	}},
	{"A bookmark of a store in which nothing was written is good after a restart", func(d *durable) {
		mark := d.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		d.restart()
		d.create(thing("a"))
		d.watch(state.WatchRequest{Bookmark: mark}).expect("CREATED a@1*")
	}},
	{"What has left the history stays expired", func(d *durable) {
		mark := d.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark()
		r := d.create(thing("a"))
		for range d.history {
			r = d.update(r)
		}
		d.restart()
		_, err := d.Watch(d.ctx, state.WatchRequest{Kind: kind, Bookmark: mark})
		d.fails("Watch", err, state.ErrBookmark)
		d.watch(state.WatchRequest{TailEvents: 2 * d.history}).expect("UPDATED a@2<1*", "UPDATED a@3<2*")
	}},
	{"A position that was never reached is refused after a restart", func(d *durable) {
		d.create(thing("a"))
		mark := bytes.Clone(d.watch(state.WatchRequest{BootstrapBookmark: true}).next().GetBookmark())
		d.restart()
		mark[len(mark)-1]++
		_, err := d.Watch(d.ctx, state.WatchRequest{Kind: kind, Bookmark: mark})
		d.fails("Watch", err, state.ErrBookmark)
	}},
	{"A write and its companions are there together", func(d *durable) {
		d.create(owned("old", "runtime"))
		d.along(nil, state.Companion{Create: owned("b", "runtime")}, state.Companion{Destroy: pointer("old")})
		d.restart()
		d.equal("ids", d.ids(state.Query{}), "a b")
	}},
	{"A dry run leaves nothing", func(d *durable) {
		_, err := d.Create(d.ctx, thing("a"), state.WriteOptions{DryRun: true})
		d.fails("Create", err, nil)
		d.restart()
		d.equal("ids", d.ids(state.Query{}), "")
	}},
}
