package statetest

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

var creating = []Rule{
	{Name: "Create sets version 1, phase running and both times", check: func(f *fixture) {
		before := time.Now().Add(-time.Minute)
		m := f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Version = "7" })).GetMetadata()
		f.equal("version", m.GetVersion(), "1")
		f.equal("phase", m.GetPhase(), state.PhaseRunning)
		if !m.GetCreated().AsTime().After(before) || !proto.Equal(m.GetCreated(), m.GetUpdated()) {
			f.Errorf("created %v, updated %v; want the present, twice", m.GetCreated(), m.GetUpdated())
		}
	}},
	{Name: "Create returns what Get returns", check: func(f *fixture) {
		r := withFinalizers(thing("a", "x=1"), "one", "two")
		r.Metadata.Annotations = map[string]string{"note": "kept"}
		created := f.create(r)
		if got := f.get("a"); !proto.Equal(got, created) {
			f.Errorf("Get = %v; want %v", got, created)
		}
		m := created.GetMetadata()
		if m.GetLabels()["x"] != "1" || m.GetAnnotations()["note"] != "kept" || !slices.Equal(m.GetFinalizers(), []string{"one", "two"}) {
			f.Errorf("metadata %v; want labels, annotations and finalizers as written", m)
		}
		f.equal("content", string(created.GetSpec().GetProtoSpec()), "content of a")
	}},
	{Name: "Create takes the owner from the options", check: func(f *fixture) {
		r, err := f.Create(f.ctx, thing("a"), state.WriteOptions{Owner: "mount"})
		f.fails("Create", err, nil)
		f.equal("owner", r.GetMetadata().GetOwner(), "mount")
	}},
	{Name: "Create refuses another owner in the metadata", check: func(f *fixture) {
		r := edited(thing("a"), func(m *resourcepb.Metadata) { m.Owner = "mount" })
		_, err := f.Create(f.ctx, r, state.WriteOptions{})
		f.fails("Create", err, state.ErrInvalid)
		_, err = f.Create(f.ctx, r, state.WriteOptions{Owner: "network"})
		f.fails("Create", err, state.ErrInvalid)
	}},
	{Name: "Create refuses a name that is taken", check: func(f *fixture) {
		f.create(thing("a"))
		_, err := f.Create(f.ctx, thing("a"), state.WriteOptions{})
		f.fails("Create", err, state.ErrExists)
		_, err = f.Create(f.ctx, thing("a"), state.WriteOptions{Owner: "mount"})
		f.fails("Create", err, state.ErrExists)
	}},
	{Name: "Create refuses an empty id and an unknown phase", check: func(f *fixture) {
		_, err := f.Create(f.ctx, thing(""), state.WriteOptions{})
		f.fails("Create", err, state.ErrInvalid)
		_, err = f.Create(f.ctx, edited(thing("a"), func(m *resourcepb.Metadata) { m.Phase = "walking" }), state.WriteOptions{})
		f.fails("Create", err, state.ErrInvalid)
	}},
	{Name: "Create in a dry run answers and stores nothing", Extended: true, check: func(f *fixture) {
		r, err := f.Create(f.ctx, thing("a"), state.WriteOptions{DryRun: true})
		f.fails("Create", err, nil)
		f.equal("version", r.GetMetadata().GetVersion(), "1")
		_, err = f.Get(f.ctx, pointer("a"))
		f.fails("Get", err, state.ErrNotFound)
	}},
	{Name: "Create again after Destroy starts at version 1", check: func(f *fixture) {
		f.update(f.create(thing("a")))
		f.destroy("a")
		f.equal("version", f.create(thing("a")).GetMetadata().GetVersion(), "1")
	}},
}

var updating = []Rule{
	{Name: "Update bumps the version, also where nothing changes", check: func(f *fixture) {
		r := f.create(thing("a"))
		r = f.update(r)
		f.equal("version", r.GetMetadata().GetVersion(), "2")
		f.equal("version", f.update(r).GetMetadata().GetVersion(), "3")
		f.equal("version", f.get("a").GetMetadata().GetVersion(), "3")
	}},
	{Name: "Update keeps created and sets updated", check: func(f *fixture) {
		first := f.create(thing("a"))
		second := f.update(edited(first, func(m *resourcepb.Metadata) { m.Created, m.Updated = nil, nil })).GetMetadata()
		if !proto.Equal(second.GetCreated(), first.GetMetadata().GetCreated()) {
			f.Errorf("created %v; want %v", second.GetCreated(), first.GetMetadata().GetCreated())
		}
		if second.GetUpdated().AsTime().Before(second.GetCreated().AsTime()) {
			f.Errorf("updated %v, before created %v", second.GetUpdated(), second.GetCreated())
		}
	}},
	{Name: "Update replaces content, labels, annotations and finalizers", check: func(f *fixture) {
		r := withFinalizers(f.create(withFinalizers(thing("a", "old=1"), "one")), "two")
		r.Metadata.Labels = map[string]string{"new": "1"}
		r.Metadata.Annotations = map[string]string{"new": "2"}
		r.Spec = &resourcepb.Spec{ProtoSpec: []byte("new")}
		m := f.update(r).GetMetadata()
		if len(m.GetLabels()) != 1 || m.GetLabels()["new"] != "1" || m.GetAnnotations()["new"] != "2" || !slices.Equal(m.GetFinalizers(), []string{"two"}) {
			f.Errorf("metadata %v; want only what the update holds", m)
		}
		f.equal("content", string(f.get("a").GetSpec().GetProtoSpec()), "new")
	}},
	{Name: "Update keeps owner and phase when it names none", check: func(f *fixture) {
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Owner, m.Phase = "mount", state.PhaseTearingDown }))
		r := edited(thing("a"), func(m *resourcepb.Metadata) { m.Version = "1" })
		r, err := f.Update(f.ctx, r, state.WriteOptions{Owner: "mount"})
		f.fails("Update", err, nil)
		f.equal("owner", r.GetMetadata().GetOwner(), "mount")
		f.equal("phase", r.GetMetadata().GetPhase(), state.PhaseTearingDown)
	}},
	{Name: "Update checks existence, owner, version and phase in this order", check: func(f *fixture) {
		wrong := edited(thing("a"), func(m *resourcepb.Metadata) { m.Version = "9" })
		o := state.WriteOptions{Owner: "network", Phase: state.PhaseTearingDown}
		_, err := f.Update(f.ctx, wrong, o)
		f.fails("Update of nothing", err, state.ErrNotFound)
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Owner = "mount" }))
		_, err = f.Update(f.ctx, wrong, o)
		f.fails("Update by another owner", err, state.ErrOwner)
		o.Owner = "mount"
		_, err = f.Update(f.ctx, wrong, o)
		f.fails("Update of another version", err, state.ErrConflict)
		right := edited(thing("a"), func(m *resourcepb.Metadata) { m.Version = "1" })
		_, err = f.Update(f.ctx, right, o)
		f.fails("Update in another phase", err, state.ErrPhase)
		o.Phase = state.PhaseRunning
		_, err = f.Update(f.ctx, right, o)
		f.fails("Update", err, nil)
	}},
	{Name: "Update wants the owner exactly", check: func(f *fixture) {
		owned := f.create(edited(thing("owned"), func(m *resourcepb.Metadata) { m.Owner = "mount" }))
		free := f.create(thing("free"))
		_, err := f.Update(f.ctx, owned, state.WriteOptions{})
		f.fails("Update of an owned resource by nobody", err, state.ErrOwner)
		_, err = f.Update(f.ctx, free, state.WriteOptions{Owner: "mount"})
		f.fails("Update of a free resource by an owner", err, state.ErrOwner)
	}},
	{Name: "Update does not change the owner", check: func(f *fixture) {
		r := f.create(thing("a"))
		_, err := f.Update(f.ctx, edited(r, func(m *resourcepb.Metadata) { m.Owner = "mount" }), state.WriteOptions{})
		f.fails("Update", err, state.ErrInvalid)
		f.equal("version", f.get("a").GetMetadata().GetVersion(), "1")
	}},
	{Name: "Update in a dry run checks, answers and stores nothing", Extended: true, check: func(f *fixture) {
		r := f.create(thing("a"))
		next, err := f.Update(f.ctx, r, state.WriteOptions{DryRun: true})
		f.fails("Update", err, nil)
		f.equal("version of the answer", next.GetMetadata().GetVersion(), "2")
		f.equal("version", f.get("a").GetMetadata().GetVersion(), "1")
		_, err = f.Update(f.ctx, next, state.WriteOptions{DryRun: true})
		f.fails("Update of another version", err, state.ErrConflict)
	}},
	{Name: "Of concurrent updates of one version one is accepted", check: func(f *fixture) {
		r := f.create(thing("a"))
		const writers = 8
		errs := make([]error, writers)
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() { _, errs[i] = f.Update(f.ctx, r, state.WriteOptions{}) })
		}
		all.Wait()
		accepted := 0
		for _, err := range errs {
			if err == nil {
				accepted++
				continue
			}
			f.fails("Update", err, state.ErrConflict)
		}
		f.equal("accepted", accepted, 1)
	}},
	{Name: "Concurrent writers of several resources lose nothing", check: func(f *fixture) {
		const writers, writes = 4, 10
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				r, err := f.Create(f.ctx, thing(strconv.Itoa(i)), state.WriteOptions{})
				for range writes {
					if err == nil {
						r, err = f.Update(f.ctx, r, state.WriteOptions{})
					}
				}
				f.fails("write", err, nil)
			})
		}
		all.Wait()
		for i := range writers {
			f.equal("version", f.get(strconv.Itoa(i)).GetMetadata().GetVersion(), strconv.Itoa(writes+1))
		}
	}},
}

var destroying = []Rule{
	{Name: "Destroy needs no teardown before", check: func(f *fixture) {
		f.create(thing("a"))
		f.destroy("a")
		_, err := f.Get(f.ctx, pointer("a"))
		f.fails("Get", err, state.ErrNotFound)
	}},
	{Name: "Destroy checks existence, owner and finalizers in this order", check: func(f *fixture) {
		f.fails("Destroy of nothing", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{}), state.ErrNotFound)
		f.create(withFinalizers(edited(thing("a"), func(m *resourcepb.Metadata) { m.Owner = "mount" }), "one"))
		f.fails("Destroy by nobody", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{}), state.ErrOwner)
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{Owner: "mount"}), state.ErrFinalizers)
		f.get("a")
	}},
	{Name: "Destroy and Teardown want the owner exactly", check: func(f *fixture) {
		f.create(edited(thing("owned"), func(m *resourcepb.Metadata) { m.Owner = "mount" }))
		f.create(thing("free"))
		for id, owner := range map[string]string{"owned": "network", "free": "mount"} {
			o := state.WriteOptions{Owner: owner}
			f.fails("Destroy of "+id+" by "+owner, f.Destroy(f.ctx, pointer(id), o), state.ErrOwner)
			_, err := f.Teardown(f.ctx, pointer(id), o)
			f.fails("Teardown of "+id+" by "+owner, err, state.ErrOwner)
			f.equal("version", f.get(id).GetMetadata().GetVersion(), "1")
		}
		f.fails("Destroy by the owner", f.Destroy(f.ctx, pointer("owned"), state.WriteOptions{Owner: "mount"}), nil)
	}},
	{Name: "Destroy in a dry run checks and destroys nothing", Extended: true, check: func(f *fixture) {
		r := f.create(withFinalizers(thing("a"), "one"))
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{DryRun: true}), state.ErrFinalizers)
		f.update(withFinalizers(r))
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{DryRun: true}), nil)
		f.get("a")
	}},
	{Name: "Teardown sets the phase and bumps the version once", check: func(f *fixture) {
		first := f.create(withFinalizers(thing("a"), "one"))
		for range 2 {
			r, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
			f.fails("Teardown", err, nil)
			f.equal("phase", r.GetMetadata().GetPhase(), state.PhaseTearingDown)
			f.equal("version", r.GetMetadata().GetVersion(), "2")
			f.equal("finalizers", len(r.GetMetadata().GetFinalizers()), 1)
		}
		m := f.get("a").GetMetadata()
		f.equal("version", m.GetVersion(), "2")
		f.equal("created", m.GetCreated().AsTime(), first.GetMetadata().GetCreated().AsTime())
	}},
	{Name: "Teardown checks existence and owner in this order", check: func(f *fixture) {
		_, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
		f.fails("Teardown of nothing", err, state.ErrNotFound)
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Owner = "mount" }))
		_, err = f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
		f.fails("Teardown by nobody", err, state.ErrOwner)
	}},
	{Name: "Teardown in a dry run changes nothing", Extended: true, check: func(f *fixture) {
		f.create(thing("a"))
		_, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{DryRun: true})
		f.fails("Teardown", err, nil)
		f.equal("phase", f.get("a").GetMetadata().GetPhase(), state.PhaseRunning)
	}},
	{Name: "A finalizer is removed while tearing down, then Destroy succeeds", check: func(f *fixture) {
		f.create(withFinalizers(thing("a"), "one"))
		_, err := f.Teardown(f.ctx, pointer("a"), state.WriteOptions{})
		f.fails("Teardown", err, nil)
		f.fails("Destroy", f.Destroy(f.ctx, pointer("a"), state.WriteOptions{}), state.ErrFinalizers)
		f.update(withFinalizers(f.get("a")))
		f.destroy("a")
	}},
}
