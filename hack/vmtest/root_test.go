package vmtest_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/images/rootfs"
)

const (
	slotA    = 258 << 20 // where the slot begins on every disk of ours
	slotSize = 256 << 20
)

// damagedDisk returns a copy of the test image's disk with a bit flipped in the last block of a file of its root, and where.
func damagedDisk(t *testing.T, pattern string) (disk string, at int64) {
	t.Helper()
	disk = vmtest.SystemDisk(t, "test", 0)
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := &lastRead{ReaderAt: io.NewSectionReader(f, slotA, slotSize)}
	root, err := rootfs.Open(seen)
	if err != nil {
		t.Fatal(err)
	}
	paths, err := fs.Glob(root, pattern)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %q, %v", pattern, paths, err)
	}
	seen.end = 0
	if _, err := fs.ReadFile(root, paths[0]); err != nil {
		t.Fatal(err)
	}
	at = slotA + seen.end - 1
	flip(t, f, at)
	return disk, at
}

// mend flips the bit back.
func mend(t *testing.T, disk string, at int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flip(t, f, at)
}

// lastRead remembers the end of what was read farthest behind.
type lastRead struct {
	io.ReaderAt
	end int64
}

func (r *lastRead) ReadAt(p []byte, at int64) (int, error) {
	r.end = max(r.end, at+int64(len(p)))
	return r.ReaderAt.ReadAt(p, at)
}

func flip(t *testing.T, f *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// damagedModule is a file of the test image that is read once, after the API is up, and that nothing in these checks needs.
const damagedModule = "usr/lib/modules/*/kernel/drivers/block/loop.ko"

// root: the node runs from slot A, which the kernel checks. A block that is not as it was cannot be read, and the kernel's word is an event.
func (c *checks) root(t *testing.T) {
	c.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	c.Expect(t, 0, `engine: load module /usr/lib/modules/\S+/loop\.ko: input/output error`)
	corrupted := regexp.MustCompile(`device-mapper: verity: .*data block \d+ is corrupted`)
	e := &eventspb.KernelEvent{}
	await(t, c.Node, "kernelevents", e, func() bool { return corrupted.MatchString(e.GetMessage()) })
	if e.GetSeverity() != "error" {
		t.Errorf("event: %v", e)
	}
	// Who may do everything cannot change it either.
	gauge(t, c.Node, "root", "change_root: true")
}

// A disk whose root is not the one that its kernel was told to run stops the boot, and the console says why.
func TestAnotherRootIsNotRun(t *testing.T) {
	vmtest.Parallel(t, 50)
	for _, tc := range []struct {
		name   string
		always bool // else with COSI_TEST_BOOTS=all
		damage func(t *testing.T, f *os.File)
		want   string
	}{
		{"another hash", true, changeHash, `PID 1 cannot go on: no slot holds the root [0-9a-f]{64}: root-a \(/dev/vda3\): another hash tree: .*; root-b \(/dev/vda4\): no hash tree at \d+; waited for 30s`},
		{"another superblock", false, func(t *testing.T, f *os.File) { flip(t, f, slotA+1024) }, `PID 1 cannot go on: mount /dev/dm-0: input/output error`},
	} {
		if !tc.always && os.Getenv("COSI_TEST_BOOTS") != "all" {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			vmtest.Host(t)
			disk := vmtest.SystemDisk(t, "base", 1<<30)
			f, err := os.OpenFile(disk, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			tc.damage(t, f)
			n := vmtest.Start(t, vmtest.Options{File: disk})
			n.Expect(t, 0, tc.want)
		})
	}
}

// changeHash has the kernel's command line wish for another root.
func changeHash(t *testing.T, f *os.File) {
	t.Helper()
	esp := make([]byte, espSize)
	if _, err := f.ReadAt(esp, espStart); err != nil {
		t.Fatal(err)
	}
	const argument = "roothash="
	at := bytes.Index(esp, []byte(argument))
	if at < 0 {
		t.Fatal("there is no roothash= in the EFI system partition")
	}
	digit := []byte("0")
	if esp[at+len(argument)] == '0' {
		digit = []byte("1")
	}
	if _, err := f.WriteAt(digit, int64(espStart+at+len(argument))); err != nil {
		t.Fatal(err)
	}
}

// slotOf copies slot A out of a raw image.
func slotOf(t *testing.T, raw, dir string) string {
	t.Helper()
	in, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "slot-a"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(in, slotA, slotSize)); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
