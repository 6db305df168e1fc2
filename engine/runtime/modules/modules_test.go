package modules

import (
	"context"
	"errors"
	"testing"
	"time"

	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/proto"
)

// fixture is a Loader over a real store; orders is what PID 1 would get.
type fixture struct {
	*testing.T
	store  *memory.Store
	loader *Loader
	orders chan wire.LoadModule
}

func start(t *testing.T) *fixture {
	store := memory.New(memory.Options{})
	f := &fixture{t, store, nil, make(chan wire.LoadModule, 16)}
	f.loader = New(store, output.New(store), func(order wire.LoadModule) error { f.orders <- order; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.loader.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

func (f *fixture) create(k state.Kind, id string, spec proto.Message) {
	f.Helper()
	content, err := proto.Marshal(spec)
	if err != nil {
		f.Fatal(err)
	}
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace, Type: k.Type, Id: id, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	if _, err := f.store.Create(f.Context(), r, state.WriteOptions{}); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) destroy(k state.Kind, id string) {
	f.Helper()
	if err := f.store.Destroy(f.Context(), state.Pointer{Kind: k, ID: id}, state.WriteOptions{}); err != nil {
		f.Fatal(err)
	}
}

// ordered wants PID 1 to be given exactly one order, and answers it.
func (f *fixture) ordered(want wire.LoadModule, reason string) {
	f.Helper()
	select {
	case got := <-f.orders:
		if got != want {
			f.Fatalf("PID 1 is told %+v; want %+v", got, want)
		}
	case <-time.After(10 * time.Second):
		f.Fatalf("PID 1 is told nothing; want %+v", want)
	}
	f.loader.Answer(&wire.Module{LoadModule: want, Reason: reason, Message: "as told"})
	f.loader.Answer(&wire.Module{LoadModule: wire.LoadModule{Name: "nobody asked"}, Reason: reason})
}

// status waits until the status of id is as want says; nil means none.
func (f *fixture) status(id string, want func(*kernelpb.KernelModuleStatus) bool) {
	f.Helper()
	var last *kernelpb.KernelModuleStatus
	for range 1000 {
		r, err := f.store.Get(f.Context(), state.Pointer{Kind: Statuses, ID: id})
		if last = nil; err == nil {
			last = &kernelpb.KernelModuleStatus{}
			if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), last); err != nil {
				f.Fatal(err)
			}
		}
		if want == nil && last == nil || want != nil && last != nil && want(last) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.Fatalf("status of %q is %v", id, last)
}

func TestAModuleIsLoadedOnceForWhatAsksForIt(t *testing.T) {
	f := start(t)
	f.create(Modules, "wireguard", &kernelpb.KernelModule{Parameters: []string{"a=1", "b"}})
	f.ordered(wire.LoadModule{Name: "wireguard", Parameters: "a=1 b"}, wire.ModuleLoaded)
	f.status("wireguard", func(s *kernelpb.KernelModuleStatus) bool {
		return s.GetReady() && s.GetReason() == wire.ModuleLoaded && s.GetObservedVersion() == "1" && s.GetMessage() == "as told"
	})
	f.create(Modules, "bogus", &kernelpb.KernelModule{})
	f.ordered(wire.LoadModule{Name: "bogus"}, wire.ModuleMissing)
	f.status("bogus", func(s *kernelpb.KernelModuleStatus) bool { return !s.GetReady() && s.GetReason() == wire.ModuleMissing })

	f.destroy(Modules, "bogus")
	f.status("bogus", nil)
	f.create(Modules, "bogus", &kernelpb.KernelModule{})
	f.ordered(wire.LoadModule{Name: "bogus"}, wire.ModuleBuiltIn) // it is asked for anew
	f.status("bogus", func(s *kernelpb.KernelModuleStatus) bool { return s.GetReady() && s.GetReason() == wire.ModuleBuiltIn })
}

func TestTheFileSystemOfAMountPointIsAskedFor(t *testing.T) {
	f := start(t)
	f.create(Mounts, "a", &storagepb.MountPoint{Source: "/dev/vdb1", Target: "/var/a", Fstype: "vfat"})
	f.ordered(wire.LoadModule{Name: "fs-vfat"}, wire.ModuleLoaded)
	f.status("fs-vfat", func(s *kernelpb.KernelModuleStatus) bool { return s.GetReady() && s.GetObservedVersion() == "" })
	f.create(Mounts, "b", &storagepb.MountPoint{Source: "/dev/vdc1", Target: "/var/b", Fstype: "vfat"})
	f.create(Mounts, "c", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/c", Fstype: "tmpfs"})
	f.ordered(wire.LoadModule{Name: "fs-tmpfs"}, wire.ModuleBuiltIn) // and not vfat's again
	f.destroy(Mounts, "a")
	f.create(Modules, "fs-vfat", &kernelpb.KernelModule{}) // somebody asks for it by name, too
	f.status("fs-vfat", func(s *kernelpb.KernelModuleStatus) bool { return s.GetObservedVersion() == "1" })
	f.status("fs-tmpfs", nil)
	f.destroy(Modules, "fs-vfat")
	f.destroy(Mounts, "b")
	f.status("fs-vfat", nil)
	select {
	case order := <-f.orders:
		t.Errorf("PID 1 is told %+v again", order)
	default:
	}
}
