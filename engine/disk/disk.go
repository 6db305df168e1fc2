// Package disk finds the disk that holds the root which the node was booted for, and prepares its state partition: the one behind those of the
// image, the fifth unless that has more, in the rest of the disk. PID 1 calls it in the initramfs, for the root, and before it starts the
// runtime.
//
// On the first boot there is none. Prepare moves the copy of the partition table to the real end of the disk, adds the partition under
// the name state-new, makes a file system, names the partition state, mounts it and has the kernel grow the file system to the partition's
// size. When the disk is larger at a later boot, partition and file system grow. Each step may be cut off by a loss of power, and is
// done by the next boot:
//
//	no entry ──> state-new ──(formatted)──> state ──> mounted ──> grown
//	                 ^                        │
//	                 └────── Reset ───────────┘ (only when it cannot be used)
//
// With a TPM the file system may be in an encrypted volume: see SealArgument.
//
// A partition that is called state and cannot be used, for whatever reason, is left as it is: what is on it may be all that somebody has.
// Then nothing may be written that would be gone with the next boot (wire.Storage.Frozen).
package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/engine/wire"
)

// SizeArgument says how many MiB the state partition has at most. Without it, it takes all of the disk that is left.
const SizeArgument = "cosi.state_mib"

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
	Partition     string // that the root is on: the state is on the same disk. "" if it is in memory
	Hash, Options string // of the root: the values of HashArgument and OptionsArgument
	Size          string // the value of SizeArgument
	Seal          string // the value of SealArgument
	Sealer        Sealer // nil if the image has none
	// UID and GID own the directory that is handed over.
	UID, GID int
	Now      func() time.Time
	// Log is told what is done for good.
	Log func(format string, args ...any)
	// LoadModule loads the module of a name or an alias.
	LoadModule func(name string) error

	kernel kernel // nil: the real one
}

// kernel is what the kernel does for a Preparer.
type kernel interface {
	// find returns the disk that a partition with the root is on.
	find(r Root, partition string) (*found, error)
	// announce tells of a partition, or of its new size.
	announce(f *found, index int) error
	// partition opens a partition, or a device that decrypts one, that nobody uses.
	partition(node string) (partition, error)
	// encrypted reports whether a partition is.
	encrypted(node string) (bool, error)
	// mount mounts the file system on Mount. Twice is harmless.
	mount(node string) error
	// grow makes the mounted file system as large as its partition of size bytes.
	grow(node string, size int64) error
	// directory makes a directory for a user on what is mounted.
	directory(path string, uid, gid int) error
}

// partition is one to make a file system on.
type partition interface {
	ext4.Disk
	io.Closer
}

// problem is why there is no state, as wire.Storage says it.
type problem struct {
	reason string
	frozen bool
	err    error
}

func (p *problem) Error() string { return p.err.Error() }

func (p *problem) Unwrap() error { return p.err }

func because(reason, format string, args ...any) error {
	return &problem{reason, false, fmt.Errorf(format, args...)}
}

// frozen says of err that it keeps a state from being used that is there.
func frozen(err error) error {
	p := &problem{reason: otherError}
	errors.As(err, &p)
	return &problem{p.reason, true, err}
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
	if p.kernel == nil {
		p.kernel = linux{}
	}
	storage := &wire.Storage{}
	err := p.prepare(storage)
	if err == nil {
		return storage
	}
	storage.Dir, storage.Reason, storage.Message = "", otherError, err.Error()
	var known *problem
	if errors.As(err, &known) {
		storage.Reason, storage.Frozen = known.reason, known.frozen
	}
	return storage
}

func (p *Preparer) prepare(storage *wire.Storage) error {
	f, err := p.find()
	if err != nil {
		return err
	}
	defer f.Close()
	index := stateOf(f.table)
	holds := index >= 0 && f.table.Partitions[index].Name != nameNew
	index, device, err := p.partition(f, holds)
	storage.Device = f.node(index)
	if err == nil {
		storage.Dir, err = p.mount(device)
	}
	if err != nil && holds {
		return frozen(err)
	}
	return err
}

// find returns the disk that the state belongs on.
func (p *Preparer) find() (*found, error) {
	if p.Partition == "" {
		return nil, because(noBootDisk, "the node was not booted from a disk of its own: what the API writes is gone with the next boot")
	}
	root, err := ParseRoot(p.Hash, p.Options)
	if err != nil {
		return nil, err
	}
	return p.kernel.find(root, p.Partition)
}

// stateOf returns the index of the state partition in t, -1 if there is none.
func stateOf(t *gpt.Table) int {
	return slices.IndexFunc(t.Partitions, func(p gpt.Partition) bool { return p.Type == gpt.State })
}

// partition makes the table say what it should, the kernel know of it, and a new partition have a file system. It returns the index of
// the state partition in the table, -1 if there is none, and what shows what is in it. One that holds something is good enough as it is, whatever
// fails of the table.
func (p *Preparer) partition(f *found, holds bool) (index int, device contents, err error) {
	index, changed, err := arrange(f.table, f.size, p.most(), newGUID)
	if err != nil {
		return index, device, err
	}
	if f.readOnly {
		return index, device, because(readOnly, "%s cannot be written", f.path)
	}
	node, part := f.node(index), f.table.Partitions[index]
	if err := p.write(f, index, changed); holds && err != nil {
		p.Log("state: %s stays as it is: %v", node, err)
	} else if err != nil {
		return index, device, err
	}
	if part.Name != nameNew {
		device, err = p.unlock(node, part.End-part.Start)
		return index, device, err
	}
	if device, err = p.format(node, part.End-part.Start); err != nil {
		return index, device, fmt.Errorf("format %s: %w", node, err)
	}
	f.table.Partitions[index].Name = nameState
	if err := f.table.Write(f, f.size); err != nil {
		return index, device, fmt.Errorf("%s: %w", f.path, err)
	}
	p.Log("state: %s is formatted", node)
	return index, device, nil
}

// write writes the table if it has changed, and tells the kernel.
func (p *Preparer) write(f *found, index int, changed bool) error {
	if changed {
		if err := f.table.Write(f, f.size); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		part := f.table.Partitions[index]
		p.Log("state: partition %d of %s is %d MiB", index+1, f.path, (part.End-part.Start)/mib)
	}
	return p.kernel.announce(f, index)
}

// newGUID makes a random one (RFC 9562, version 4).
func newGUID() gpt.GUID {
	var g gpt.GUID
	rand.Read(g[:])         // never fails: see its documentation
	g[7] = g[7]&0x0f | 0x40 // the third field is little-endian
	g[8] = g[8]&0x3f | 0x80
	return g
}

// most returns how large the state partition may become. A size that is none is no reason to have no state.
func (p *Preparer) most() int64 {
	if p.Size == "" {
		return math.MaxInt64
	}
	n, err := strconv.ParseUint(p.Size, 10, 32)
	if err != nil {
		p.Log("state: kernel argument %s=%s is not a number of MiB", SizeArgument, p.Size)
		return math.MaxInt64
	}
	return max(int64(n)*mib, minimum)
}

// arrange adds a state partition of at most most bytes to t, or lets the one that is there grow to that, or to the end of a disk of size
// bytes. It returns its index, and whether t has to be written.
func arrange(t *gpt.Table, size, most int64, guid func() gpt.GUID) (index int, changed bool, err error) {
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
		end = start + min(end-start, most)
		t.Partitions = append(t.Partitions, gpt.Partition{Type: gpt.State, GUID: guid(), Name: nameNew, Start: start, End: end})
		return len(t.Partitions) - 1, true, nil
	}
	state := &t.Partitions[index]
	end = state.Start + min(end-state.Start, most)
	if state.Start >= last && end > state.End {
		state.End, changed = end, true
	}
	return index, changed || t.Backup || t.Moved, nil
}

// mount mounts the file system, has it grow, and returns the directory on it that is the runtime's own.
func (p *Preparer) mount(device contents) (dir string, err error) {
	node := device.node
	err = p.kernel.mount(node)
	if errors.Is(err, unix.ENODEV) { // a kernel that has ext4 as a module
		if failed := p.LoadModule("fs-ext4"); failed != nil {
			return "", fmt.Errorf("%w: %w", err, failed)
		}
		err = p.kernel.mount(node)
	}
	if err == nil {
		if err := p.kernel.grow(node, device.size); err != nil {
			p.Log("state: grow %s: %v", node, err) // smaller than it could be, and whole
		}
		dir = filepath.Join(Mount, "runtime")
		err = p.kernel.directory(dir, p.UID, p.GID)
	}
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOMEM):
		return "", err // the kernel lacks something: a new file system would not mount either
	case err != nil:
		return "", frozen(because(wire.StorageDamaged, "%w", err))
	}
	return dir, nil
}

// Reset has a state partition that cannot be used be formatted at the next boot. It fails when there is none.
func (p *Preparer) Reset() error {
	f, err := p.find()
	if err != nil {
		return err
	}
	defer f.Close()
	index := stateOf(f.table)
	if index < 0 {
		return errors.New("there is no state partition")
	}
	f.table.Partitions[index].Name = nameNew
	return f.table.Write(f, f.size)
}

// partitionNode is the device node of partition number n of a disk: /dev/vda5, /dev/nvme0n1p5.
func partitionNode(disk string, n int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return disk + "p" + strconv.Itoa(n)
	}
	return disk + strconv.Itoa(n)
}
