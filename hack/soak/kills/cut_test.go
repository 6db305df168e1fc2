package kills

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/blklog"
)

// fake is a recording without a VM: a runtime that runs alone, whose directory becomes a file system that is written to a disk at once, and flushed, after
// each of its lives.
type fake struct {
	*Recording
	fakeLog
	program string
	random  *rand.Rand
}

const fakeDisk = 32 << 20

func newFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "cut") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fake{program: filepath.Join(dir, "runtime"), random: rand.New(rand.NewPCG(1, 2))}
	if out, err := exec.Command("go", "build", "-o", f.program, "../../../engine/runtime").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.Recording = &Recording{machine: &Machine{Dir: dir, Image: filepath.Join(dir, "empty"), Log: io.Discard}, part: gpt.Partition{End: fakeDisk}}
	if err := os.WriteFile(f.machine.Image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.fakeLog = newFakeLog(t)
	f.Recording.file = f.fakeLog.file
	for n := range 2 {
		f.writers = append(f.writers, newWriter("default", "Cuts.soak.cosi.dev", n))
		f.writers[n].ledger = &ledger{log: f.Recording.file}
	}
	return f
}

// live has the writers write, and then writes what the runtime has left to the disk.
func (f *fake) live(t *testing.T) {
	t.Helper()
	r := Runtime{Program: f.program, Dir: f.machine.Dir, Log: t.Output()}
	victim, err := r.start()
	if err != nil {
		t.Fatal(err)
	}
	c, err := victim.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		for _, w := range f.writers {
			if gone, err := w.writeOne(t.Context(), c.State, w.next(f.random)); gone || err != nil {
				t.Fatal(gone, err)
			}
		}
	}
	c.Close()
	victim.Kill()
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "runtime", "log"), os.DirFS(r.Data())); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(f.machine.Dir, "disk")
	if out, err := e2fsprogs(t.Context(), "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk, "32M"); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	image, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	f.append(t, 0, 0, image)
	f.append(t, blklog.Flush, 0, nil)
}

// cut cuts the disk at every flush: half a write of a file system is none.
func (f *fake) cut(t *testing.T) (points []Point, report Report) {
	t.Helper()
	var err error
	if f.record, err = readRecord(f.machine.Image, fakeDisk, f.Recording.file); err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Points(1) {
		if !p.Some {
			points = append(points, p)
		}
	}
	return points, f.Cut(t.Context(), f.program, 1, points)
}

func TestACutOfTheRecordShowsWhatIsLost(t *testing.T) {
	f := newFake(t)
	for range 3 {
		f.live(t)
	}
	// The answers came before anything was written.
	if _, report := f.cut(t); len(report.Failures) != 1 || !strings.Contains(report.Failures[0], "acknowledged was") {
		t.Errorf("%+v; want what was lost", report)
	}
	// As if they had come after the flush.
	for _, w := range f.writers {
		for i := range w.ledger.entries {
			w.ledger.entries[i].acknowledged += 2
		}
	}
	points, report := f.cut(t)
	if report.Done != len(points) || len(points) < 3 {
		t.Errorf("%+v; want %d cuts and nothing wrong", report, len(points))
	}
	// Nobody had sent them when they were there.
	for _, w := range f.writers {
		for i := range w.ledger.entries {
			w.ledger.entries[i].sent += 4
			w.ledger.entries[i].acknowledged += 4
		}
	}
	if _, report := f.cut(t); len(report.Failures) != 1 {
		t.Errorf("%+v; want what nobody wrote", report)
	}
}

func TestADamagedFileSystemIsFound(t *testing.T) {
	f := newFake(t)
	f.live(t)
	disk := filepath.Join(f.machine.Dir, "disk")
	data := filepath.Join(f.machine.Dir, "read")
	if err := readState(t.Context(), disk, data); err != nil {
		t.Fatal(err)
	}
	// Blocks that are in use are free, says the bitmap.
	if out, err := e2fsprogs(t.Context(), "debugfs", "-w", "-R", "freeb 1 2000", disk); err != nil {
		t.Fatalf("debugfs: %v\n%s", err, out)
	}
	if err := readState(t.Context(), disk, data+"2"); err == nil || !strings.Contains(err.Error(), "e2fsck -f -n") {
		t.Errorf("readState = %v; want what e2fsck says", err)
	}
}
