package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// disk is hardware: it counts how often it became another size.
type disk struct {
	size    int64
	changes int
}

func (d *disk) Name() string { return "disk0" }

func (d *disk) Resize(mib int64) error {
	if mib == d.size {
		return fmt.Errorf("it is %d MiB already", mib)
	}
	d.size = mib
	d.changes++
	return nil
}

// changes of a network are counted.
type changes int

func (c *changes) Change() error { *c++; return nil }

// function of a kernel, which is held or not.
type function struct{ held atomic.Bool }

func (f *function) occupy(name string) (io.Closer, error) {
	if name != "set_disk_ro" {
		return nil, errors.New("no such function")
	}
	f.held.Store(true)
	return f, nil
}

func (f *function) Close() error { f.held.Store(false); return nil }

func start(t *testing.T, s *storm) *plugintest.Runtime {
	t.Helper()
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(s)) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
	return r
}

func TestEachVersionOfARequestIsAStorm(t *testing.T) {
	d, f, c, locked := &disk{size: 1}, &function{}, new(changes), time.Duration(0)
	r := start(t, &storm{
		open: func() (resizer, error) { return d, nil }, links: func() (changer, error) { return c, nil },
		occupy: f.occupy, lockUp: func(d time.Duration) error { locked += d; return nil }, held: map[string]io.Closer{},
	})
	st := &testpb.StormRequestStatus{}
	rage := func(id string, request *testpb.StormRequest) {
		t.Helper()
		version := r.Apply(id, request).GetMetadata().GetVersion()
		r.Wait("it is over", func() bool { return r.Get(id, st) != nil && st.GetObservedVersion() == version })
	}
	rage("a", &testpb.StormRequest{Events: 2500})
	if !st.GetReady() || d.changes != 2500 || st.GetDevice() != "disk0" || st.GetSize() != uint64(d.size)<<20 {
		t.Errorf("status %v; want 2500 changes to %d MiB, the disk has %d", st, d.size, d.changes)
	}
	rage("a", &testpb.StormRequest{Events: 50, PerSecond: 500})
	if !st.GetReady() || d.changes != 2550 || st.GetSize() != uint64(d.size)<<20 || st.GetSeconds() < 0.098 {
		t.Errorf("status %v; want 50 changes more, in a tenth of a second", st)
	}
	rage("links", &testpb.StormRequest{LinkEvents: 70, PerSecond: 700})
	if !st.GetReady() || *c != 70 || d.changes != 2550 || st.GetSeconds() < 0.098 || st.GetDevice() != "" {
		t.Errorf("status %v, %d changes; want 70 of the network, in a tenth of a second", st, *c)
	}
	rage("lock", &testpb.StormRequest{LockUp: 3})
	if !st.GetReady() || locked != 3*time.Second {
		t.Errorf("status %v; want a processor locked up for 3 s, not %s", st, locked)
	}
	rage("b", &testpb.StormRequest{Occupy: "nothing"})
	if st.GetReady() || !strings.Contains(st.GetMessage(), "no such function") {
		t.Errorf("status %v; want why not", st)
	}
	rage("b", &testpb.StormRequest{Occupy: "set_disk_ro"})
	if !st.GetReady() || !f.held.Load() {
		t.Errorf("status %v, held %v; want that it is held", st, f.held.Load())
	}
	r.Delete("b", &testpb.StormRequest{})
	r.Wait("the status goes with the request", func() bool { return r.Get("b", &testpb.StormRequestStatus{}) == nil })
	if f.held.Load() {
		t.Error("it is held although nobody wants it any more")
	}
}

// The kernel's own loop device takes each size. Needs /dev/loop-control.
func TestALoopDeviceIsResized(t *testing.T) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		t.Skipf("loop devices, and the right to them, are needed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	control.Close()
	d, err := newDevice()
	if err != nil {
		t.Fatal(err)
	}
	defer d.loop.Close()
	for events := range uint64(3) {
		if err := d.Resize(size(events + 1)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile("/sys/class/block/" + d.Name() + "/size")
		if err != nil || strings.TrimSpace(string(text)) != fmt.Sprint(size(events+1)<<20/512) {
			t.Errorf("size %s, %v; want %d MiB", text, err, size(events+1))
		}
	}
}
