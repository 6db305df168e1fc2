package statetest

import (
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// alongside are the rules of WriteOptions.Along.
var alongside = []Rule{
	{Name: "A companion is created with the write, with the owner it names", check: func(f *fixture) {
		f.along(nil, state.Companion{Create: owned("b", "runtime")})
		m := f.get("b").GetMetadata()
		f.equal("owner", m.GetOwner(), "runtime")
		f.equal("version", m.GetVersion(), "1")
	}},
	{Name: "A companion is destroyed with the write, whoever owns it", check: func(f *fixture) {
		f.along(nil, state.Companion{Create: owned("b", "runtime")})
		_, err := f.Update(f.ctx, f.get("a"), state.WriteOptions{Along: companions(state.Companion{Destroy: pointer("b")})})
		f.fails("Update", err, nil)
		_, err = f.Get(f.ctx, pointer("b"))
		f.fails("Get", err, state.ErrNotFound)
	}},
	{Name: "A companion to destroy that is not there, or held by a finalizer, is left alone", check: func(f *fixture) {
		f.create(withFinalizers(thing("held"), "mount"))
		f.along(nil, state.Companion{Destroy: pointer("held")}, state.Companion{Destroy: pointer("none")})
		f.get("held")
	}},
	{Name: "A companion that cannot be created takes the write with it", check: func(f *fixture) {
		f.create(thing("b"))
		f.along(state.ErrExists, state.Companion{Create: owned("c", "")}, state.Companion{Create: owned("b", "")})
		for _, id := range []string{"a", "c"} {
			_, err := f.Get(f.ctx, pointer(id))
			f.fails("Get "+id, err, state.ErrNotFound)
		}
	}},
	{Name: "One commit names a resource once", check: func(f *fixture) {
		f.along(state.ErrInvalid, state.Companion{Create: owned("a", "")})
		f.along(state.ErrInvalid, state.Companion{Create: owned("b", "")}, state.Companion{Destroy: pointer("b")})
	}},
	{Name: "Along is given what the write does, and is not asked when nothing is done", check: func(f *fixture) {
		var before, after *resourcepb.Resource
		asked := 0
		o := state.WriteOptions{Along: func(b, a *resourcepb.Resource) []state.Companion {
			before, after = b, a
			asked++
			return nil
		}}
		dry := o
		dry.DryRun = true
		_, err := f.Create(f.ctx, thing("a"), dry)
		f.fails("Create", err, nil)
		created, err := f.Create(f.ctx, thing("a"), o)
		f.fails("Create", err, nil)
		if asked != 1 || before != nil || after != created {
			f.Errorf("asked %d times, last with %v, %v; want once, with nothing before and what was created", asked, before, after)
		}
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), o), nil)
		if asked != 2 || before != created || after != nil {
			f.Errorf("asked %d times, last with %v, %v; want with what was destroyed", asked, before, after)
		}
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), o), state.ErrNotFound)
		f.equal("times asked", asked, 2)
	}},
	{Name: "Each change of a commit has a bookmark of its own", check: func(f *fixture) {
		w := f.watch(state.WatchRequest{Kind: kind})
		f.along(nil, state.Companion{Create: owned("b", "")}, state.Companion{Create: owned("c", "")})
		first := w.next()
		f.equal("first", first.GetResource().GetMetadata().GetId(), "a")
		resumed := f.watch(state.WatchRequest{Kind: kind, Bookmark: first.GetBookmark()})
		for _, id := range []string{"b", "c"} {
			f.equal("next", w.next().GetResource().GetMetadata().GetId(), id)
			f.equal("resumed", resumed.next().GetResource().GetMetadata().GetId(), id)
		}
	}},
}

// along creates a with companions and expects the error.
func (f *fixture) along(want error, all ...state.Companion) {
	f.Helper()
	_, err := f.Create(f.ctx, thing("a"), state.WriteOptions{Along: companions(all...)})
	f.fails("Create", err, want)
}

func companions(all ...state.Companion) func(before, after *resourcepb.Resource) []state.Companion {
	return func(*resourcepb.Resource, *resourcepb.Resource) []state.Companion { return all }
}

func owned(id, owner string) *resourcepb.Resource {
	return edited(thing(id), func(m *resourcepb.Metadata) { m.Owner = owner })
}
