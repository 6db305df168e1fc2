// Package disk prepares the state partition of the disk that a node was booted from: the fifth one, in the rest of the disk. PID 1 calls
// it before it starts the runtime.
//
// On the first boot there is none. Prepare moves the copy of the partition table to the real end of the disk, adds the partition under
// the name state-new, makes a file system, names the partition state, mounts it and has the kernel grow the file system to the partition's
// size. When the disk is larger at a later boot, partition and file system grow. Each step may be cut off by a loss of power, and is
// done by the next boot:
//
//	no entry ──> state-new ──(formatted)──> state ──> mounted ──> grown
//	                 ^                        │
//	                 └────── Reset ───────────┘ (only when it does not mount)
//
// A partition that is called state and does not mount is left as it is: what is on it may be all that somebody has.
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/engine/wire"
)

// Argument of the kernel's command line: the GUID of the disk that the image was booted from. Images that are no disk do not have it.
const Argument = "cosi.disk"

// Mount is where the state partition is mounted.
const Mount = "/var/lib/cosi/state"

// Names of the partition.
const (
	nameNew   = "state-new" // it holds nothing of value
	nameState = "state"
)

const mib = 1 << 20

// minimum is the smallest state partition.
const minimum = ext4.Size

// Preparer prepares the state partition.
type Preparer struct {
	GUID string // of the disk: the value of Argument
	// UID and GID own the directory that is handed over.
	UID, GID int
	Now      func() time.Time
	// Log is told what is done for good.
	Log func(format string, args ...any)
	// Search loads drivers of disks. It is called once, when the disk is not there.
	Search func()
	// Patience is how long a disk may take to come after that.
	Patience time.Duration

	found *found
}

// problem is why there is no state, as wire.Storage says it.
type problem struct {
	reason string
	err    error
}

func (p *problem) Error() string { return p.err.Error() }

func (p *problem) Unwrap() error { return p.err }

func because(reason, format string, args ...any) error {
	return &problem{reason, fmt.Errorf(format, args...)}
}

// Reasons of wire.Storage beside wire.StorageDamaged.
const (
	noBootDisk = "NoBootDisk"
	ambiguous  = "Ambiguous"
	noSpace    = "NoSpace"
	readOnly   = "ReadOnly"
	otherError = "Error"
)

// Prepare mounts the state partition and returns where the runtime may write, or why it may not. Twice is harmless.
func (p *Preparer) Prepare() *wire.Storage {
	storage := &wire.Storage{}
	err := p.prepare(storage)
	if err == nil {
		return storage
	}
	storage.Dir, storage.Reason, storage.Message = "", otherError, err.Error()
	var known *problem
	if errors.As(err, &known) {
		storage.Reason = known.reason
	}
	return storage
}

func (p *Preparer) prepare(storage *wire.Storage) error {
	if p.GUID == "" {
		return because(noBootDisk, "the node was not booted from a disk of its own: what the API writes is gone with the next boot")
	}
	guid, err := gpt.ParseGUID(p.GUID)
	if err != nil {
		return fmt.Errorf("kernel argument %s: %w", Argument, err)
	}
	if p.found, err = p.wait(guid); err != nil {
		return err
	}
	defer p.found.Close()
	index, err := p.partition()
	if p.found.node(index) != "" {
		storage.Device = p.found.node(index)
	}
	if err != nil {
		return err
	}
	if err := p.mount(index, storage.Device); err != nil {
		return err
	}
	storage.Dir, err = p.directory()
	return err
}

// partition makes the table say what it should, the kernel know of it, and a new partition have a file system. It returns the index of
// the state partition in the table, -1 if there is none.
func (p *Preparer) partition() (int, error) {
	table := p.found.table
	index, changed, err := arrange(table, p.found.size, newGUID)
	if err != nil {
		return index, err
	}
	if p.found.readOnly {
		return index, because(readOnly, "%s cannot be written", p.found.path)
	}
	if changed {
		if err := table.Write(p.found, p.found.size); err != nil {
			return index, fmt.Errorf("%s: %w", p.found.path, err)
		}
		part := table.Partitions[index]
		p.Log("state: partition %d of %s is %d MiB", index+1, p.found.path, (part.End-part.Start)/mib)
	}
	if err := p.found.announce(index); err != nil {
		return index, err
	}
	if table.Partitions[index].Name != nameNew {
		return index, nil
	}
	if err := p.format(index); err != nil {
		return index, fmt.Errorf("format %s: %w", p.found.node(index), err)
	}
	table.Partitions[index].Name = nameState
	if err := table.Write(p.found, p.found.size); err != nil {
		return index, fmt.Errorf("%s: %w", p.found.path, err)
	}
	p.Log("state: %s is formatted", p.found.node(index))
	return index, nil
}

func (p *Preparer) format(index int) error {
	file, err := os.OpenFile(p.found.node(index), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return err
	}
	o := ext4.Options{UUID: newGUID(), Label: "STATE", Time: p.Now()}
	return errors.Join(ext4.Write(file, o), file.Close())
}

// newGUID makes a random one (RFC 9562, version 4).
func newGUID() gpt.GUID {
	var g gpt.GUID
	rand.Read(g[:])         // never fails: see its documentation
	g[7] = g[7]&0x0f | 0x40 // the third field is little-endian
	g[8] = g[8]&0x3f | 0x80
	return g
}

// arrange adds a state partition to t, or lets the one that is there grow to the end of a disk of size bytes. It returns its index, and
// whether t has to be written.
func arrange(t *gpt.Table, size int64, guid func() gpt.GUID) (index int, changed bool, err error) {
	index, last := -1, int64(mib)
	for i, p := range t.Partitions {
		if p.Type == gpt.State && index < 0 {
			index = i
			continue
		}
		if p.Type != (gpt.GUID{}) {
			last = max(last, p.End)
		}
	}
	end := gpt.Usable(size) / mib * mib
	if index < 0 {
		start := (last + mib - 1) / mib * mib
		if end-start < minimum {
			return -1, false, because(noSpace, "%d MiB behind the last partition, and %d are needed", max(0, end-start)/mib, minimum/mib)
		}
		t.Partitions = append(t.Partitions, gpt.Partition{Type: gpt.State, GUID: guid(), Name: nameNew, Start: start, End: end})
		return len(t.Partitions) - 1, true, nil
	}
	state := &t.Partitions[index]
	if state.Start >= last && end > state.End {
		state.End, changed = end, true
	}
	return index, changed || t.Backup || t.Moved, nil
}

// mount mounts the file system and has it grow.
func (p *Preparer) mount(index int, device string) error {
	if err := os.MkdirAll(Mount, 0o755); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	err := unix.Mount(device, Mount, "ext4", flags, "")
	switch {
	case errors.Is(err, unix.EBUSY): // mounted already
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EUCLEAN), errors.Is(err, unix.EBADMSG):
		return because(wire.StorageDamaged, "mount %s: %w", device, err)
	case err != nil:
		return fmt.Errorf("mount %s: %w", device, err)
	}
	part := p.found.table.Partitions[index]
	if err := grow(device, part.End-part.Start); err != nil {
		p.Log("state: grow %s: %v", device, err) // smaller than it could be, and whole
	}
	return nil
}

// directory makes what is the runtime's own.
func (p *Preparer) directory() (string, error) {
	dir := filepath.Join(Mount, "runtime")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.Chown(dir, p.UID, p.GID)
}

// Reset has a state partition that does not mount be formatted at the next boot. It fails when there is none, or when it is mounted.
func (p *Preparer) Reset() error {
	guid, err := gpt.ParseGUID(p.GUID)
	if err != nil {
		return fmt.Errorf("kernel argument %s: %w", Argument, err)
	}
	f, err := find(guid)
	if err != nil {
		return err
	}
	defer f.Close()
	for i, part := range f.table.Partitions {
		if part.Type != gpt.State {
			continue
		}
		if mounted, err := isMounted(f.node(i)); err != nil || mounted {
			return errors.Join(err, fmt.Errorf("%s is mounted: nothing to reset", f.node(i)))
		}
		f.table.Partitions[i].Name = nameNew
		return f.table.Write(f, f.size)
	}
	return errors.New("there is no state partition")
}

func isMounted(device string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, " "); name == device {
			return true, nil
		}
	}
	return false, err
}

// partitionNode is the device node of partition number n of a disk: /dev/vda5, /dev/nvme0n1p5.
func partitionNode(disk string, n int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return disk + "p" + strconv.Itoa(n)
	}
	return disk + strconv.Itoa(n)
}
