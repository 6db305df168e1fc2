package log

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// tiny makes a store whose every second write begins a segment, and whose history holds all.
var tiny = Options{
	SegmentBytes: reserve + 1<<10, SnapshotBytes: 4 << 10,
	Limits: func(state.Kind) memory.Limits { return memory.Limits{Events: 1 << 20, Bytes: 1 << 30} },
	Now:    func() time.Time { return time.Unix(7, 0) },
}

func mustOpen(t testing.TB, d disk, o Options) *Store {
	t.Helper()
	s, err := open(d, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func resource(typ, id string, size int) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: typ, Id: id},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte(strings.Repeat("x", size))},
	}
}

func along(id string) state.WriteOptions {
	return state.WriteOptions{Along: func(_, _ *resourcepb.Resource) []state.Companion {
		return []state.Companion{{Create: resource("Audits", id, 20)}}
	}}
}

// step does the i-th thing in the life of a store. Errors are for the caller to judge.
func step(s *Store, i int, random *rand.Rand) error {
	ctx := context.Background()
	id := fmt.Sprintf("r%d", random.IntN(8))
	typ := []string{"Things", "Others"}[random.IntN(2)]
	p := state.Pointer{Kind: state.Kind{Namespace: "config", Type: typ}, ID: id}
	o := state.WriteOptions{}
	if random.IntN(4) == 0 {
		o = along(fmt.Sprintf("a%d", i))
	}
	r := resource(typ, id, random.IntN(300))
	current := s.Lookup(p)
	switch {
	case current == nil:
		_, err := s.Create(ctx, r, o)
		return err
	case random.IntN(4) == 0:
		return s.Destroy(ctx, p, o)
	default:
		r.Metadata.Version = current.GetMetadata().GetVersion()
		_, err := s.Update(ctx, r, o)
		return err
	}
}

// live runs n steps on d, with snapshots and restarts in between, acknowledges each on the tape, and returns the open store.
func live(t *testing.T, d *tape, o Options, n int) *Store {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	s := mustOpen(t, d, o)
	for i := range n {
		if err := step(s, i, random); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		d.ack(s.Sequence())
		select {
		case <-s.due:
			if err := s.takeSnapshot(true); err != nil {
				t.Fatal(err)
			}
		default:
		}
		if i%23 == 22 {
			if i%2 == 0 {
				s.Close()
			}
			s = mustOpen(t, d, o)
		}
	}
	return s
}

// all returns the last changes, those that s has in its history, as text, in the order of their sequence, and what there is in the end.
func all(s *Store) (changes []string, contents string) {
	past := map[uint64]string{}
	var resources []string
	for _, k := range s.Kinds() {
		c := s.Contents(k)
		for _, p := range c.History {
			past[p.Sequence] = fmt.Sprintf("%v %s %s<%s", p.Event.GetEventType(), k, describe(p.Event.GetResource()), describe(p.Event.GetOld()))
		}
		for _, r := range c.Resources {
			resources = append(resources, k.String()+" "+describe(r.Message()))
		}
	}
	for i := range uint64(len(past)) {
		changes = append(changes, past[s.Sequence()-uint64(len(past))+i+1])
	}
	slices.Sort(resources)
	return changes, strings.Join(resources, "\n")
}

func describe(r *resourcepb.Resource) string {
	m := r.GetMetadata()
	return fmt.Sprintf("%s@%s:%d", m.GetId(), m.GetVersion(), len(r.GetSpec().GetProtoSpec()))
}

// truth is what happened in a life: all changes, what there was after each, and where commits end.
type truth struct {
	changes  []string
	contents []string // by sequence; "" is before the first
	ends     map[uint64]bool
	full     bool // the disk was: the history may have been given up
}

// truthOf replays what s has in its history.
func truthOf(s *Store, d *tape) *truth {
	truth := &truth{contents: []string{""}, ends: map[uint64]bool{0: true}}
	truth.changes, _ = all(s)
	there := map[string]string{}
	for _, c := range truth.changes {
		var event, kind, change string
		fmt.Sscan(c, &event, &kind, &change)
		after, _, _ := strings.Cut(change, "<")
		id, _, _ := strings.Cut(after, "@")
		if there[kind+id] = kind + " " + after; event == "DESTROYED" {
			delete(there, kind+id)
		}
		var lines []string
		for _, line := range there {
			lines = append(lines, line)
		}
		slices.Sort(lines)
		truth.contents = append(truth.contents, strings.Join(lines, "\n"))
	}
	for _, a := range d.done {
		if a.what == "ack" {
			truth.ends[a.ack] = true
		}
	}
	return truth
}

// check opens what is left of a store and says what is wrong with it.
func (truth *truth) check(files map[string][]byte, acknowledged uint64, o Options) (*tape, error) {
	d := newTape(files)
	s, err := open(d, o)
	if err != nil {
		return d, fmt.Errorf("open: %w", err)
	}
	n := s.Sequence()
	if n < acknowledged {
		return d, fmt.Errorf("it ends with commit %d, and %d was acknowledged", n, acknowledged)
	}
	if truth.ends != nil && !truth.ends[n] {
		return d, fmt.Errorf("commit %d is in the middle of a write and what goes along with it", n)
	}
	changes, contents := all(s)
	if contents != truth.contents[n] {
		return d, fmt.Errorf("after commit %d there is\n%s\nnot\n%s", n, contents, truth.contents[n])
	}
	if truth.full {
		if !slices.Equal(changes, truth.changes[n-uint64(len(changes)):n]) {
			return d, fmt.Errorf("the end of the history of commit %d is\n%q\nnot that of\n%q", n, changes, truth.changes[:n])
		}
		return d, nil
	}
	if !slices.Equal(changes, truth.changes[:n]) {
		return d, fmt.Errorf("the history of commit %d is\n%q\nnot\n%q", n, changes, truth.changes[:n])
	}
	return d, nil
}

// cutEverywhere cuts a tape at every action, in every way, and once more during the recovery, and returns the first thing that is wrong.
func cutEverywhere(d *tape, truth *truth, o Options, every int) (cuts int, err error) {
	random := rand.New(rand.NewPCG(3, 4))
	for n := 0; n <= len(d.done); n += every {
		for _, s := range survivals() {
			files, acknowledged := d.cut(n, s, random)
			recovered, err := truth.check(files, acknowledged, o)
			cuts++
			if err != nil {
				return cuts, fmt.Errorf("power lost after action %d of %d, %s: %w", n, len(d.done), s.name, err)
			}
			for m := range len(recovered.done) {
				again := survivals()[random.IntN(len(survivals()))]
				files, _ := recovered.cut(m, again, random)
				cuts++
				if _, err := truth.check(files, acknowledged, o); err != nil {
					return cuts, fmt.Errorf("power lost after action %d of %d, %s, and in the recovery after %d, %s: %w", n, len(d.done), s.name, m, again.name, err)
				}
			}
		}
	}
	return cuts, nil
}

func TestNothingAcknowledgedIsLostWhereverThePowerGoes(t *testing.T) {
	d := newTape(nil)
	truth := truthOf(live(t, d, tiny, 80), d)
	if s, r := d.renames(imageSuffix), d.renames(segmentSuffix); s < 2 || r < 10 {
		t.Errorf("%d snapshots and %d segments; want more to cut in", s, r)
	}
	cuts, err := cutEverywhere(d, truth, tiny, every)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commits, %d actions, %d cuts", len(truth.changes), len(d.done), cuts)
}

func TestALossOfPowerShowsABuildThatDoesNotSync(t *testing.T) {
	for name, o := range map[string]Options{"fdatasync": {skipSync: true}, "fsync of the directory": {skipDirectorySync: true}} {
		skips := tiny
		skips.skipSync, skips.skipDirectorySync = o.skipSync, o.skipDirectorySync
		d := newTape(nil)
		truth := truthOf(live(t, d, skips, 80), d)
		if _, err := cutEverywhere(d, truth, tiny, 1); err == nil {
			t.Errorf("without the %s nothing was lost: these tests see nothing", name)
		} else {
			t.Logf("without the %s: %.200s", name, err)
		}
	}
}

func TestWritersThatShareABatchLoseNothing(t *testing.T) {
	const writers, writes = 8, 12
	d := newTape(nil)
	s := mustOpen(t, d, tiny)
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			r := resource("Things", fmt.Sprintf("w%d", w), 10*w)
			var err error
			for i := range writes {
				if i == 0 {
					r, err = s.Create(t.Context(), r, state.WriteOptions{})
				} else {
					r, err = s.Update(t.Context(), r, state.WriteOptions{})
				}
				if err != nil {
					t.Error(err)
					return
				}
				d.ack(s.Sequence())
			}
		})
	}
	running.Wait()
	truth := truthOf(s, d)
	truth.ends = nil // each change is a commit of its own
	if _, err := cutEverywhere(d, truth, tiny, every); err != nil {
		t.Fatal(err)
	}
}

// Each action of a life fails in turn, once and for a while. Writes may fail, and only those are lost.
func TestADiskThatFailsLosesOnlyWritesThatFailed(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, fault := range []struct {
		err  error
		long int
		part bool
	}{{syscall.EIO, 1, false}, {syscall.EIO, 3, true}, {syscall.EIO, 20, false}, {syscall.ENOSPC, 1, true}, {syscall.ENOSPC, 20, false}} {
		for at := 4; at < 200; at += every * (1 + random.IntN(3)) {
			d := newTape(nil)
			s := mustOpen(t, d, tiny)
			failed := 0
			d.fault = func(n int, a action) (int, error) {
				if n < at || failed >= fault.long || fault.err == syscall.ENOSPC && (a.what == "sync" || a.what == "remove") {
					return len(a.data), nil
				}
				failed++
				if fault.part {
					return len(a.data) / 2, fault.err
				}
				return 0, fault.err
			}
			steps(t, s, fault.err)
			d.fault = nil
			if err := step(s, 999, random); err != nil {
				t.Fatalf("after %v at action %d the disk is well again, and a write fails: %v", fault.err, at, err)
			}
			d.ack(s.Sequence())
			if d.trusted != "" {
				t.Fatalf("after %v at action %d there is a %s of a file whose sync had failed", fault.err, at, d.trusted)
			}
			truth := truthOf(s, d)
			truth.ends, truth.full = nil, fault.err == syscall.ENOSPC
			for _, survives := range survivals() {
				files, acknowledged := d.cut(len(d.done), survives, random)
				if _, err := truth.check(files, acknowledged, tiny); err != nil {
					t.Fatalf("%v at action %d, then power lost, %s: %v", fault.err, at, survives.name, err)
				}
			}
		}
	}
}

// steps runs a life in which writes may fail with what the disk says.
func steps(t *testing.T, s *Store, want error) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 8))
	for i := range 40 {
		before := s.Sequence()
		if err := step(s, i, random); err != nil {
			if !errors.Is(err, want) || want == syscall.ENOSPC && !errors.Is(err, state.ErrNoSpace) {
				t.Fatalf("step %d = %v; want what the disk says, %v", i, err, want)
			}
			if s.Sequence() != before {
				t.Fatalf("step %d failed and is visible", i)
			}
		}
		select {
		case <-s.due:
			s.takeSnapshot(true)
		default:
		}
	}
}

// A sync fails, and the process dies before it does anything about that: the next one finds in the file what is not on the disk.
func TestWhatTheKernelShowsIsNotWhatTheDiskHas(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for at := range 60 {
		d := newTape(nil)
		s := mustOpen(t, d, tiny)
		syncs := 0
		d.fault = func(_ int, a action) (int, error) {
			if a.what == "sync" {
				syncs++
			}
			if syncs > at {
				return 0, syscall.EIO
			}
			return len(a.data), nil
		}
		var err error
		for i := 0; err == nil; i++ {
			err = step(s, i, random)
			d.ack(s.Sequence())
		}
		d.fault = nil
		d.restart()
		s = mustOpen(t, d, tiny)
		d.ack(s.Sequence()) // whoever reads it now may act on it
		for i := range 5 {
			if err := step(s, 100+i, random); err != nil {
				t.Fatalf("sync %d failed, and the next process cannot write: %v", at, err)
			}
			d.ack(s.Sequence())
		}
		truth := truthOf(s, d)
		truth.ends = nil
		for _, survives := range survivals() {
			files, acknowledged := d.cut(len(d.done), survives, random)
			if _, err := truth.check(files, acknowledged, tiny); err != nil {
				t.Fatalf("sync %d failed, the process was started again, and then power lost, %s: %v", at, survives.name, err)
			}
		}
	}
}

// A segment says where the one before it ends, and nothing gets into it either: the one that takes its place says it still.
func TestASyncThatFailsTwiceLeavesTheEndOfTheSegmentBefore(t *testing.T) {
	for _, restart := range []bool{false, true} {
		d := newTape(nil)
		s := mustOpen(t, d, Options{})
		syncs := 0
		d.fault = func(_ int, a action) (int, error) {
			if a.what != "sync" || s.segment == nil || d.names[s.segment.name] != a.inode {
				return len(a.data), nil
			}
			if syncs++; syncs == 3 || syncs == 4 {
				return 0, syscall.EIO
			}
			return 0, nil
		}
		for i, want := range []error{nil, nil, syscall.EIO, syscall.EIO} {
			if _, err := s.Create(t.Context(), resource("Things", fmt.Sprint(i), 10), state.WriteOptions{}); !errors.Is(err, want) {
				t.Fatalf("write %d = %v; want %v", i, err, want)
			}
		}
		if restart {
			d.restart()
			s = mustOpen(t, d, Options{})
		}
		if _, err := s.Create(t.Context(), resource("Things", "again", 10), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		last := s.Sequence()
		asked := 0
		first := survival{"the first that failed is on the disk all the same", func(*rand.Rand) bool { asked++; return asked == 1 }, never, false}
		files, _ := d.cut(len(d.done), first, nil)
		if s = mustOpen(t, newTape(files), Options{}); s.Sequence() != last {
			t.Errorf("restarted %v, it ends with commit %d; want %d", restart, s.Sequence(), last)
		}
		if s.Lookup(state.Pointer{Kind: state.Kind{Namespace: "config", Type: "Things"}, ID: "2"}) != nil {
			t.Errorf("restarted %v, a write that failed is there", restart)
		}
	}
}
