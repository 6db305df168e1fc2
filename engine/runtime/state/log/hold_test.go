package log

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

var things = state.Kind{Namespace: "config", Type: "Things"}

// heldDisk is a disk whose syncs wait for the test.
type heldDisk struct {
	*tape
	began chan struct{} // a sync has
	end   chan error    // what becomes of it
}

type heldFile struct {
	file
	disk *heldDisk
}

// hold opens a store, and holds the syncs of its segment from now on.
func hold(t *testing.T) (*Store, *heldDisk) {
	t.Helper()
	d := &heldDisk{newTape(nil), make(chan struct{}), make(chan error)}
	s := mustOpen(t, d.tape, Options{})
	s.segment.file = heldFile{s.segment.file, d}
	return s, d
}

func (f heldFile) Sync() error {
	f.disk.began <- struct{}{}
	if err := <-f.disk.end; err != nil {
		return err
	}
	return f.file.Sync()
}

// answers are what writers that run at the same time were told, by what they did.
type answers struct {
	running sync.WaitGroup
	mu      sync.Mutex
	all     map[string]error
}

func (a *answers) start(name string, write func() error) {
	a.running.Go(func() {
		err := write()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.all[name] = err
	})
}

func (a *answers) given() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

// joined waits until n writers are in the batch that forms.
func joined(t *testing.T, s *Store, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		writers := 0
		if s.forming != nil {
			writers = s.forming.writers
		}
		s.mu.Unlock()
		if writers == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d writers have joined; want %d", writers, n)
		}
	}
}

// TestNobodySeesAWriteBeforeItsFsync holds the fsync, and looks.
func TestNobodySeesAWriteBeforeItsFsync(t *testing.T) {
	s, d := hold(t)
	ctx := t.Context()
	w, err := s.Watch(ctx, state.WatchRequest{Kind: things})
	if err != nil {
		t.Fatal(err)
	}
	a := &answers{all: map[string]error{}}
	a.start("create", func() error {
		_, err := s.Create(ctx, resource("Things", "a", 10), state.WriteOptions{})
		return err
	})
	<-d.began
	a.start("create again", func() error { // its answer depends on what is not durable yet
		_, err := s.Create(ctx, resource("Things", "a", 20), state.WriteOptions{})
		return err
	})
	a.start("dry run", func() error {
		_, err := s.Teardown(ctx, state.Pointer{Kind: things, ID: "a"}, state.WriteOptions{DryRun: true})
		return err
	})
	time.Sleep(50 * time.Millisecond) // were one of them to answer, or the write to be shown, it would by now
	if n := a.given(); n > 0 {
		t.Errorf("before the fsync has ended %d were answered: %v", n, a.all)
	}
	if r, err := s.Get(ctx, state.Pointer{Kind: things, ID: "a"}); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("before the fsync has ended Get = %v, %v", r, err)
	}
	if all, err := s.List(ctx, things, state.Query{}); err != nil || len(all) > 0 {
		t.Errorf("before the fsync has ended List = %v, %v", all, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if events, err := w.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before the fsync has ended Next = %v, %v", events, err)
	}

	d.end <- nil
	a.running.Wait()
	if a.all["create"] != nil || a.all["dry run"] != nil || !errors.Is(a.all["create again"], state.ErrExists) {
		t.Errorf("after the fsync the answers are %v", a.all)
	}
	if _, err := s.Get(ctx, state.Pointer{Kind: things, ID: "a"}); err != nil {
		t.Errorf("after the fsync Get = %v", err)
	}
	if all, err := s.List(ctx, things, state.Query{}); err != nil || len(all) != 1 {
		t.Errorf("after the fsync List = %v, %v", all, err)
	}
	if events, err := w.Next(ctx); err != nil || len(events) != 1 || events[0].GetEventType() != resourcepb.EventType_CREATED {
		t.Errorf("after the fsync Next = %v, %v", events, err)
	}
}

// TestAFailedFsyncFailsAllThatDependOnIt: several writers share a batch, and several were checked against it.
func TestAFailedFsyncFailsAllThatDependOnIt(t *testing.T) {
	s, d := hold(t)
	ctx := t.Context()
	a := &answers{all: map[string]error{}}
	create := func(id string) {
		a.start(id, func() error {
			_, err := s.Create(ctx, resource("Things", id, 10), state.WriteOptions{})
			return err
		})
	}
	create("before")
	<-d.began
	for i := range 4 { // they share a batch while the one before is with the disk
		create(fmt.Sprintf("batch-%d", i))
	}
	joined(t, s, 4)
	d.end <- nil
	<-d.began
	for i := range 4 { // of the pending resources, and of others
		create(fmt.Sprintf("next-%d", i))
		a.start(fmt.Sprintf("update-%d", i), func() error {
			r := resource("Things", fmt.Sprintf("batch-%d", i), 20)
			r.Metadata.Version = "1"
			_, err := s.Update(ctx, r, state.WriteOptions{})
			return err
		})
	}
	joined(t, s, 8)
	d.end <- syscall.EIO
	a.running.Wait()
	for id, err := range a.all {
		if want := map[bool]error{true: nil, false: syscall.EIO}[id == "before"]; !errors.Is(err, want) {
			t.Errorf("%s = %v; want %v", id, err, want)
		}
	}
	if n := s.Sequence(); len(a.all) != 13 || n != 1 {
		t.Errorf("of %d writes %d are visible; want the first of 13", len(a.all), n)
	}
	for _, id := range []string{"batch-0", "next-0"} { // what was pending is forgotten: these are created, not there already
		if _, err := s.Create(ctx, resource("Things", id, 30), state.WriteOptions{}); err != nil {
			t.Errorf("after the failure Create of %s = %v", id, err)
		}
	}
	files, _ := d.cut(len(d.done), survivals()[0], nil)
	all, err := mustOpen(t, newTape(files), Options{}).List(ctx, things, state.Query{})
	if err != nil || len(all) != 3 {
		t.Errorf("opened again there are %d resources, %v; want 3", len(all), err)
	}
}

// heldSnapshots is a disk whose syncs of snapshots wait for the test.
type heldSnapshots struct{ *heldDisk }

func (d heldSnapshots) Create(name string) (file, error) {
	f, err := d.heldDisk.Create(name)
	if err == nil && strings.HasSuffix(name, imageSuffix+unborn) {
		f = heldFile{f, d.heldDisk}
	}
	return f, err
}

// TestASegmentIsBegunWhileASnapshotIsSynced: the room for the snapshot after it is another file.
func TestASegmentIsBegunWhileASnapshotIsSynced(t *testing.T) {
	d := heldSnapshots{&heldDisk{newTape(nil), make(chan struct{}), make(chan error)}}
	s := mustOpen(t, d, tiny)
	write := func(n int) {
		t.Helper()
		for range n {
			r := resource("Things", fmt.Sprint(s.Sequence()), 300)
			if _, err := s.Create(t.Context(), r, state.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(3)
	taken := make(chan error)
	go func() { taken <- s.takeSnapshot(true) }()
	<-d.began
	begun := d.renames(segmentSuffix)
	write(10)
	if d.renames(segmentSuffix) == begun {
		t.Fatal("no segment was begun")
	}
	d.end <- nil
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	for _, survives := range survivals() {
		files, _ := d.cut(len(d.done), survives, rand.New(rand.NewPCG(1, 2)))
		again, err := open(newTape(files), tiny)
		if err != nil {
			t.Fatalf("power lost, %s: %v", survives.name, err)
		}
		if again.Sequence() != 13 || again.snapshot.last != 3 {
			t.Errorf("power lost, %s: it ends with commit %d, after a snapshot of %d; want 13 and 3", survives.name, again.Sequence(), again.snapshot.last)
		}
	}
}
