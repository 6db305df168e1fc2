package log

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// limit makes d a disk of so many bytes, as long as they are not lifted.
func (t *tape) limit(bytes *int64) {
	t.fault = func(_ int, a action) (int, error) {
		if a.what != "write" && a.what != "truncate" {
			return len(a.data), nil
		}
		used := int64(0)
		for _, i := range t.names {
			if i != a.inode {
				used += int64(len(i.data))
			}
		}
		if used+max(int64(len(a.inode.data)), a.offset+int64(len(a.data))) > *bytes && a.offset+int64(len(a.data)) > int64(len(a.inode.data)) {
			return 0, syscall.ENOSPC
		}
		return len(a.data), nil
	}
}

func TestAFullDiskRefusesWritesUntilThereIsSpace(t *testing.T) {
	d, ctx := newTape(nil), t.Context()
	size := int64(1 << 20)
	d.limit(&size)
	o := Options{SegmentBytes: 64 << 10}
	s := mustOpen(t, d, o)
	things := state.Kind{Namespace: "config", Type: "Things"}
	created := 0
	var err error
	for ; err == nil; created++ {
		_, err = s.Create(ctx, resource("Things", fmt.Sprintf("r%d", created), 1<<10), state.WriteOptions{})
	}
	created--
	if !errors.Is(err, state.ErrNoSpace) || created < 250 {
		t.Fatalf("write %d = %v; want ErrNoSpace when the disk of 1 MiB is full", created, err)
	}

	all, err := s.List(ctx, things, state.Query{})
	if err != nil || len(all) != created {
		t.Errorf("List finds %d resources, %v; want %d", len(all), err, created)
	}
	w, err := s.Watch(ctx, state.WatchRequest{Kind: things, TailEvents: 1})
	if err != nil {
		t.Fatal(err)
	}
	if events, err := w.Next(ctx); err != nil || events[0].GetResource() != all[len(all)-1].Message() && len(events) != 1 {
		t.Errorf("Next = %v, %v; want the last event", events, err)
	}
	for i := range 10 {
		if _, err := s.Teardown(ctx, state.PointerTo(all[i].Message()), state.WriteOptions{}); err != nil {
			t.Errorf("Teardown on a full disk = %v", err)
		}
		if err := s.Destroy(ctx, state.PointerTo(all[i].Message()), state.WriteOptions{}); err != nil {
			t.Errorf("Destroy on a full disk = %v; it may be what makes room", err)
		}
	}
	if _, err := s.Create(ctx, resource("Things", "more", 1<<10), state.WriteOptions{}); !errors.Is(err, state.ErrNoSpace) {
		t.Errorf("Create = %v; want ErrNoSpace still", err)
	}

	size *= 2
	if _, err := s.Create(context.Background(), resource("Things", "more", 1<<10), state.WriteOptions{}); err != nil {
		t.Errorf("with space again: Create = %v", err)
	}
	s.Close()
	if all, err := mustOpen(t, d, o).List(ctx, things, state.Query{}); err != nil || len(all) != created-10+1 {
		t.Errorf("opened again it has %d resources, %v; want %d", len(all), err, created-10+1)
	}
}

// filler fills a store and empties it again.
type filler struct {
	*Store
	t              *testing.T
	d              disk
	o              Options
	random         *rand.Rand
	largest, lives int // bytes of a resource; writes between two starts, on average
	there          []*resourcepb.Resource
	made           int
}

func newFiller(t *testing.T, d disk, o Options, seed uint64) *filler {
	t.Helper()
	return &filler{Store: mustOpen(t, d, o), t: t, d: d, o: o, random: rand.New(rand.NewPCG(seed, 0)), largest: 4 << 10, lives: 50}
}

// background does what Run does.
func (f *filler) background() {
	select {
	case <-f.due:
		if err := f.takeSnapshot(true); err != nil && !isFull(err) {
			f.t.Fatal(err)
		}
	default:
	}
}

// again opens the store again, after the process has died or ended.
func (f *filler) again() {
	if f.random.IntN(2) == 0 {
		f.Close()
	} else { // the kernel closes the files of the dead
		if spare, _ := f.spare.take(); spare != nil {
			spare.Close()
		}
		if f.segment != nil {
			f.segment.file.Close()
		}
	}
	f.Store = mustOpen(f.t, f.d, f.o)
}

func (f *filler) create() error {
	o := state.WriteOptions{}
	if f.random.IntN(2) == 0 {
		o = along(fmt.Sprintf("a%d", f.made%64)) // as audit records: bounded
		o.Along = bounded(f.Store, o.Along)
	}
	r, err := f.Create(context.Background(), resource("Things", fmt.Sprintf("r%d", f.made), f.random.IntN(f.largest)), o)
	if err == nil {
		f.made++
		f.there = append(f.there, r)
	}
	f.background()
	return err
}

// bounded leaves out companions that are there already.
func bounded(s *Store, next func(_, _ *resourcepb.Resource) []state.Companion) func(_, _ *resourcepb.Resource) []state.Companion {
	return func(before, after *resourcepb.Resource) []state.Companion {
		all := next(before, after)
		if s.Lookup(state.PointerTo(all[0].Create)) != nil {
			return nil
		}
		return all
	}
}

// update writes one anew.
func (f *filler) update() error {
	i := f.random.IntN(len(f.there))
	r := resource("Things", f.there[i].GetMetadata().GetId(), f.random.IntN(f.largest))
	r.Metadata.Version = f.there[i].GetMetadata().GetVersion()
	updated, err := f.Update(context.Background(), r, state.WriteOptions{})
	if err == nil {
		f.there[i] = updated
	}
	f.background()
	return err
}

// destroy takes one away, which must go on whatever the disk holds.
func (f *filler) destroy() {
	f.t.Helper()
	i := f.random.IntN(len(f.there))
	p := state.PointerTo(f.there[i])
	if f.random.IntN(2) == 0 {
		if _, err := f.Teardown(context.Background(), p, state.WriteOptions{}); err != nil {
			f.t.Fatalf("with %d resources there, Teardown = %v", len(f.there), err)
		}
	}
	if err := f.Destroy(context.Background(), p, state.WriteOptions{}); err != nil {
		f.t.Fatalf("with %d resources there, Destroy = %v", len(f.there), err)
	}
	f.there = append(f.there[:i], f.there[i+1:]...)
	f.background()
}

// fill writes until the disk is full.
func (f *filler) fill() {
	f.t.Helper()
	for {
		err := f.create()
		if err == nil && f.random.IntN(3) == 0 {
			err = f.update()
		}
		if errors.Is(err, state.ErrNoSpace) {
			return
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// cycle fills the disk, takes away three quarters of what there is, and wants half of that to have become room.
func (f *filler) cycle(n int) {
	f.t.Helper()
	f.fill()
	most := len(f.there)
	for len(f.there) > most/4 {
		f.destroy()
		if f.random.IntN(f.lives) == 0 {
			f.again()
		}
	}
	for len(f.there) < most*5/8 {
		if err := f.create(); err != nil {
			f.t.Fatalf("cycle %d: of %d resources %d were taken away, and with %d again Create = %v", n, most, most-most/4, len(f.there), err)
		}
	}
}

func TestTheLogAloneFillsTheDiskAndTakingAwayMakesRoom(t *testing.T) {
	for seed := range uint64(max(3, 12/every)) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			size := int64(2 << 20)
			d := newTape(nil)
			d.limit(&size)
			f := newFiller(t, d, Options{SegmentBytes: 64 << 10, SnapshotBytes: []int64{64 << 10, 1 << 30}[seed%2]}, seed)
			for n := range 4 {
				f.cycle(n)
			}
			f.fill()
			for len(f.there) > 0 {
				f.destroy()
			}
			f.again()
			if all, err := f.List(t.Context(), state.Kind{Namespace: "config", Type: "Things"}, state.Query{}); err != nil || len(all) > 0 {
				t.Errorf("all was taken away, and %d are there, %v", len(all), err)
			}
		})
	}
}

// TestASmallFileSystemThatIsFull does the same with the kernel's ext4, which needs room for more than contents.
func TestASmallFileSystemThatIsFull(t *testing.T) {
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := errors.Join(os.Mkdir(mount, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", "-m", "0", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, mount).CombinedOutput(); err != nil {
		if os.Getuid() == 0 && unix.Access("/dev/loop-control", unix.R_OK) == nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Skipf("loop devices, and the right to mount, are needed: %s", out)
	}
	defer func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	d, err := openDirectory(filepath.Join(mount, "log"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{SegmentBytes: 1 << 20, skipSync: true, Warn: func(err error) { t.Log(err) }}
	f := newFiller(t, sameProcess{d}, o, 1)
	f.largest, f.lives = 64<<10, 500
	defer func() {
		if err := errors.Join(f.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}()
	f.cycle(0)
	f.fill()
	if all := len(f.there); all < 600 {
		t.Errorf("64 MiB are full with %d resources of 32 KiB", all)
	}
	for len(f.there) > 0 {
		f.destroy()
	}
}

// sameProcess keeps the lock of a directory when the store is closed.
type sameProcess struct{ *directory }

func (sameProcess) Close() error { return nil }

// TestWhoeverWritesToAFullDiskKeepsNobodyFromTakingAway: a batch that many share fails as a whole, and those who take something away are not
// to wait for the others to give up.
func TestWhoeverWritesToAFullDiskKeepsNobodyFromTakingAway(t *testing.T) {
	size := int64(1 << 20)
	d := newTape(nil)
	d.limit(&size)
	f := newFiller(t, d, Options{SegmentBytes: 64 << 10}, 1)
	f.fill()
	var running sync.WaitGroup
	var done atomic.Bool
	for w := range 4 {
		running.Go(func() {
			for i := 0; !done.Load(); i++ {
				_, err := f.Create(context.Background(), resource("Others", fmt.Sprintf("w%d-%d", w, i), 1<<10), state.WriteOptions{})
				if err != nil && !errors.Is(err, state.ErrNoSpace) {
					t.Error(err)
				}
			}
		})
	}
	for len(f.there) > 0 {
		f.destroy()
	}
	done.Store(true)
	running.Wait()
}
