package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/engine/wire"
)

// machine is a machine with one disk, from one loss of power to the next, and a kernel that is as strict as the real one: a file system
// is mounted when all of it is there, and is no larger than its partition.
type machine struct {
	t        *testing.T
	disk     []byte
	recorder *layouttest.Recorder
	readOnly bool
	// fail, if set, is what a call fails with, by its name.
	fail map[string]error

	modules []string // that the image has

	parts   map[string]part // what the kernel knows, by node
	mounted string
}

type part struct{ start, end int64 }

// boot starts a machine: the kernel reads the table.
func boot(t *testing.T, disk []byte) *machine {
	m := &machine{t: t, disk: disk, recorder: &layouttest.Recorder{}, parts: map[string]part{}}
	if table, err := gpt.Read(m, int64(len(disk))); err == nil {
		for i, p := range table.Partitions {
			m.parts[partitionNode("/dev/vda", i+1)] = part{p.Start, p.End}
		}
	}
	return m
}

func (m *machine) ReadAt(b []byte, off int64) (int, error) {
	return (&layouttest.Memory{Data: m.disk}).ReadAt(b, off)
}
func (m *machine) Sync() error  { return errors.Join(m.fail["sync"], m.recorder.Sync()) }
func (m *machine) Close() error { return nil }

func (m *machine) WriteAt(b []byte, off int64) (int, error) {
	if err := m.fail["write"]; err != nil {
		return 0, err
	}
	m.recorder.WriteAt(b, off)
	return (&layouttest.Memory{Data: m.disk}).WriteAt(b, off)
}

func (m *machine) find(Root, string) (*found, error) {
	table, err := gpt.Read(m, int64(len(m.disk)))
	if err != nil {
		return nil, err
	}
	return &found{device: m, path: "/dev/vda", size: int64(len(m.disk)), readOnly: m.readOnly, table: table}, nil
}

func (m *machine) announce(f *found, index int) error {
	p := f.table.Partitions[index]
	m.parts[f.node(index)] = part{p.Start, p.End}
	return m.fail["announce"]
}

// window is a partition.
type window struct {
	*machine
	part
}

func (w window) WriteAt(b []byte, off int64) (int, error) {
	if w.start+off+int64(len(b)) > w.end {
		w.t.Errorf("a write of %d bytes at %d is beyond the partition", len(b), off)
		return 0, io.ErrShortWrite
	}
	return w.machine.WriteAt(b, w.start+off)
}

func (m *machine) partition(node string) (partition, error) {
	if m.mounted == node {
		return nil, unix.EBUSY
	}
	return window{m, m.parts[node]}, m.fail["format"]
}

func (m *machine) encrypted(node string) (bool, error) {
	start := m.parts[node].start
	return bytes.HasPrefix(m.disk[start:], []byte(luksMagic)), m.fail["encrypted"]
}

// sizeAt is where this kernel keeps the size of a file system that has grown: in one sector, because the real one has a journal.
const sizeAt = 512

// load loads a module, which has the kernel know the file system.
func (m *machine) load(name string) error {
	if !slices.Contains(m.modules, name) {
		return errNoModule
	}
	delete(m.fail, "mount")
	return nil
}

var errNoModule = errors.New("no such module")

func (m *machine) mount(node string) error {
	if err := m.fail["mount"]; err != nil {
		return err
	}
	p, there := m.parts[node]
	if !there {
		return unix.ENOENT
	}
	fs := m.disk[p.start:p.end]
	superblock := fs[1024:2048]
	sum := ^crc32.Checksum(superblock[:0x3fc], crc32.MakeTable(crc32.Castagnoli))
	if binary.LittleEndian.Uint32(superblock[0x3fc:]) != sum || superblock[0x38] != 0x53 {
		return unix.EINVAL
	}
	if size := max(ext4.Size, int64(binary.LittleEndian.Uint64(fs[sizeAt:]))); size > int64(len(fs)) {
		m.t.Errorf("a file system of %d bytes is on a partition of %d", size, len(fs))
		return unix.EINVAL
	}
	whole := &layouttest.Memory{Data: make([]byte, ext4.Size)}
	o := ext4.Options{UUID: [16]byte(superblock[0x68:]), Label: "STATE", Time: now()}
	if err := ext4.Write(whole, o); err != nil {
		m.t.Fatal(err)
	}
	if !bytes.Equal(whole.Data[1024:contentAt], fs[1024:contentAt]) {
		m.t.Error("a file system is mounted that is not whole")
	}
	m.mounted = node
	return nil
}

func (m *machine) grow(node string, size int64) error {
	if err := m.fail["grow"]; err != nil {
		return err
	}
	p := m.parts[node]
	if size != p.end-p.start {
		return unix.EINVAL
	}
	m.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(size)), p.start+sizeAt)
	return m.Sync()
}

func (m *machine) directory(string, int, int) error { return m.fail["directory"] }

// contentAt is where what people wrote stands in the file system, in bytes.
const contentAt = 60 * mib

var content = []byte("what was acknowledged")

// keep writes something down on what is mounted.
func (m *machine) keep() {
	window{m, m.parts[m.mounted]}.WriteAt(content, contentAt)
	m.Sync()
}

func (m *machine) kept() bool {
	return bytes.HasPrefix(m.disk[m.parts[m.mounted].start+contentAt:], content)
}

func now() time.Time { return time.Unix(1_700_000_000, 0) }

func (m *machine) preparer() *Preparer {
	return &Preparer{Partition: "/dev/vda3", Hash: strings.Repeat("0", 64), Options: "hash-offset=8192", Now: now, Log: m.t.Logf, LoadModule: m.load, kernel: m}
}

// small is a disk of some MiB with the image on it: four partitions, and no state.
func small(t *testing.T, size int64) []byte {
	table := &gpt.Table{DiskGUID: gpt.GUID{1}}
	for i := range int64(4) {
		table.Partitions = append(table.Partitions, gpt.Partition{Type: gpt.GUID{9}, GUID: gpt.GUID{2, byte(i)}, Start: (i + 1) * mib, End: (i + 2) * mib})
	}
	disk := make([]byte, 7*mib)
	if err := table.Write(&layouttest.Memory{Data: disk}, int64(len(disk))); err != nil {
		t.Fatal(err)
	}
	return append(disk, make([]byte, size-int64(len(disk)))...)
}

// finished boots until the state is there, and fails unless that is the next time.
func finished(t *testing.T, disk []byte) *machine {
	t.Helper()
	m := boot(t, disk)
	s := m.preparer().Prepare()
	if s.Dir != filepath.Join(Mount, "runtime") || s.Reason != "" || s.Device != "/dev/vda5" {
		t.Fatalf("the next boot comes to %+v", s)
	}
	table, err := gpt.Read(m, int64(len(disk)))
	if err != nil || table.Backup || table.Moved || len(table.Partitions) != 5 {
		t.Fatalf("the next boot leaves the table %+v, %v", table, err)
	}
	p := table.Partitions[4]
	if end := gpt.Usable(int64(len(disk))) / mib * mib; p.Name != nameState || p.End != end || m.parts["/dev/vda5"] != (part{p.Start, p.End}) {
		t.Fatalf("the next boot leaves the partition %+v, and the kernel with %+v; want it to end at %d", p, m.parts["/dev/vda5"], end)
	}
	if size := int64(binary.LittleEndian.Uint64(m.disk[p.Start+sizeAt:])); size != p.End-p.Start {
		t.Fatalf("the next boot leaves a file system of %d bytes on a partition of %d", size, p.End-p.Start)
	}
	return m
}

// cut calls each with the disk as a loss of power in the middle of what m did could leave it.
func (m *machine) cut(before []byte, tries int, each func(disk []byte)) (cuts int) {
	seed := rand.Uint64()
	for disk := range m.recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), tries) {
		cuts++
		each(bytes.Clone(disk))
		if m.t.Failed() {
			m.t.Fatalf("seed %d, cut %d", seed, cuts)
		}
	}
	return cuts
}

// TestEachCutOfTheChainIsFinishedByTheNextBoot cuts the first boot, and then the boot that finishes it: table, kernel, format, name, mount,
// growth.
func TestEachCutOfTheChainIsFinishedByTheNextBoot(t *testing.T) {
	before := small(t, 72*mib)
	m := finished(t, bytes.Clone(before))
	cuts := m.cut(before, 3, func(disk []byte) {
		start := bytes.Clone(disk)
		again := finished(t, disk)
		if rand.IntN(8) == 0 {
			again.cut(start, 1, func(disk []byte) { finished(t, disk) })
		}
	})
	if cuts < 30 {
		t.Errorf("%d cuts only", cuts)
	}
}

// TestEachCutOfAGrowthKeepsWhatIsThere: the disk is larger at a later boot.
func TestEachCutOfAGrowthKeepsWhatIsThere(t *testing.T) {
	m := finished(t, small(t, 72*mib))
	m.keep()
	before := append(bytes.Clone(m.disk), make([]byte, 40*mib)...)
	m = finished(t, bytes.Clone(before))
	if !m.kept() {
		t.Fatal("what was acknowledged is gone from the larger disk")
	}
	m.cut(before, 6, func(disk []byte) {
		if !finished(t, disk).kept() {
			t.Error("what was acknowledged is gone after a cut")
		}
	})
}

// TestEachCutOfAResetLeavesAStateThatIsDamagedOrANewOne: what does not mount stays until somebody says so, and then is made anew.
func TestEachCutOfAResetLeavesAStateThatIsDamagedOrANewOne(t *testing.T) {
	m := finished(t, small(t, 72*mib))
	copy(m.disk[m.parts["/dev/vda5"].start+1024:], make([]byte, 1024))
	before := bytes.Clone(m.disk)
	damaged := func(m *machine) *Preparer {
		p := m.preparer()
		if s := p.Prepare(); s.Dir != "" || s.Reason != wire.StorageDamaged || !s.Frozen || s.Device != "/dev/vda5" {
			t.Fatalf("the damaged partition comes to %+v", s)
		}
		if m.recorder.Writes() > 0 {
			t.Fatalf("%d sectors of the damaged partition's disk were written", m.recorder.Writes())
		}
		return p
	}
	m = boot(t, bytes.Clone(before))
	if err := damaged(m).Reset(); err != nil {
		t.Fatal(err)
	}
	anew := 0
	m.cut(before, 4, func(disk []byte) {
		again := boot(t, disk)
		f, err := again.find(Root{}, "")
		if err != nil {
			t.Fatal(err)
		}
		if f.table.Partitions[4].Name == nameNew {
			anew++
		} else if err := damaged(again).Reset(); err != nil {
			t.Fatal(err)
		}
		finished(t, again.disk)
	})
	if anew < 4 {
		t.Errorf("after %d of the cuts only it was to be made anew", anew)
	}
	start := bytes.Clone(m.disk)
	finished(t, m.disk).cut(start, 1, func(disk []byte) { finished(t, disk) })
}

// TestAStateThatCannotBeUsedIsFrozen: whatever keeps it from being used, nothing may be written that would be gone, and it stays as it is. A
// reset is possible where it can help.
func TestAStateThatCannotBeUsedIsFrozen(t *testing.T) {
	there := finished(t, small(t, 72*mib)).disk
	for _, c := range []struct {
		name   string
		disk   []byte
		change func(*machine)
		reason string
		frozen bool
	}{
		{"it does not mount", there, func(m *machine) { m.fail = map[string]error{"mount": unix.EINVAL} }, wire.StorageDamaged, true},
		{"it cannot be read", there, func(m *machine) { m.fail = map[string]error{"mount": unix.EIO} }, wire.StorageDamaged, true},
		{"it can be mounted only to be read", there, func(m *machine) { m.fail = map[string]error{"directory": unix.EROFS} }, wire.StorageDamaged, true},
		{"the kernel has no driver", there, func(m *machine) { m.fail = map[string]error{"mount": unix.ENODEV} }, otherError, true},
		{"the kernel has the driver as a module", there, func(m *machine) {
			m.fail, m.modules = map[string]error{"mount": unix.ENODEV}, []string{"fs-ext4"}
		}, "", false},
		{"the disk is read-only", there, func(m *machine) { m.readOnly = true }, readOnly, true},
		{"the table cannot be written, which was not needed", there, func(m *machine) { m.fail = map[string]error{"write": unix.EIO} }, "", false},
		{"it does not grow", append(bytes.Clone(there), make([]byte, 8*mib)...), func(m *machine) { m.fail = map[string]error{"write": unix.EIO} }, "", false},
		{"there was none, and the disk is read-only", small(t, 72*mib), func(m *machine) { m.readOnly = true }, readOnly, false},
		{"there was none, and it cannot be made", small(t, 72*mib), func(m *machine) { m.fail = map[string]error{"format": unix.EIO} }, otherError, false},
		{"there was none, and it does not mount", small(t, 72*mib), func(m *machine) { m.fail = map[string]error{"mount": unix.EIO} }, wire.StorageDamaged, true},
	} {
		m := boot(t, bytes.Clone(c.disk))
		c.change(m)
		s := m.preparer().Prepare()
		if s.Reason != c.reason || s.Frozen != c.frozen || (s.Dir == "") != (c.reason != "") || (s.Message == "") != (c.reason == "") {
			t.Errorf("%s: %+v; want reason %q, frozen %v", c.name, s, c.reason, c.frozen)
		}
		if &c.disk[0] == &there[0] && !bytes.Equal(m.disk[:ext4.Size], there[:ext4.Size]) {
			t.Errorf("%s: and it was written to", c.name)
		}
	}
}
