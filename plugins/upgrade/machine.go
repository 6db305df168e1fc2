package upgrade

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// Names of partitions.
const espName = "esp"

var slotNames = []string{"root-a", "root-b"}

// Firmwares.
const (
	uefi = "UEFI"
	bios = "BIOS"
)

// errNoSlot says that the node does not run from a slot.
var errNoSlot = errors.New("the node does not run from a slot of a disk: there is nothing to upgrade")

// machine is where the node runs from.
type machine struct {
	firmware string
	root     verity.Hash // that runs
	running  slot
	other    slot
	disk     string // the kernel's name of it
	esp      string // device node
	version  string // of the image that runs

	// open opens a partition for writing, and no one that is mounted.
	open func(node string) (partition, error)
	// reread opens a partition for reading what is on the medium, not what is kept of it in memory.
	reread func(node string) (readCloser, error)
}

// slot is a partition that a root is kept on.
type slot struct {
	name, node string
	size       int64
}

// partition is one that is open.
type partition interface {
	fat.Disk
	io.Closer
}

type readCloser interface {
	io.ReaderAt
	io.Closer
}

// look finds out where the node runs from. sys is /sys, device that of /, and arguments the kernel's command line.
func look(sys string, device uint64, arguments string) (*machine, error) {
	m := &machine{firmware: firmwareOf(sys), open: openPartition, reread: reread}
	for word := range strings.FieldsSeq(arguments) {
		if hash, is := strings.CutPrefix(word, "roothash="); is {
			var err error
			if m.root, err = verity.ParseHash(hash); err != nil {
				return nil, fmt.Errorf("kernel argument roothash: %w", err)
			}
		}
	}
	below, err := os.ReadDir(fmt.Sprintf("%s/dev/block/%d:%d/slaves", sys, unix.Major(device), unix.Minor(device)))
	if err != nil || len(below) != 1 || m.root == (verity.Hash{}) {
		return nil, errNoSlot
	}
	partition, err := filepath.EvalSymlinks(filepath.Join(sys, "class/block", below[0].Name()))
	if err != nil {
		return nil, err
	}
	m.disk = filepath.Base(filepath.Dir(partition))
	return m, m.partitions(filepath.Dir(partition), below[0].Name())
}

// firmwareOf says by which one the node was booted.
func firmwareOf(sys string) string {
	if _, err := os.Stat(filepath.Join(sys, "firmware/efi")); err == nil {
		return uefi
	}
	return bios
}

// partitions finds those of the disk with a directory in /sys, of which the node runs from one.
func (m *machine) partitions(dir, running string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name(), "uevent"))
		if err != nil {
			continue // no partition
		}
		s := slot{node: "/dev/" + entry.Name()}
		for line := range strings.Lines(string(text)) {
			if value, is := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); is {
				s.name = value
			}
		}
		if size, err := os.ReadFile(filepath.Join(dir, entry.Name(), "size")); err == nil {
			sectors, _ := strconv.ParseInt(strings.TrimSpace(string(size)), 10, 64) // the kernel writes a number
			s.size = sectors * 512
		}
		switch {
		case s.name == espName:
			m.esp = s.node
		case !slices.Contains(slotNames, s.name):
		case entry.Name() == running:
			m.running = s
		default:
			m.other = s
		}
	}
	if m.esp == "" || m.running.node == "" || m.other.node == "" {
		return fmt.Errorf("%s: no partitions %s and %s: %w", dir, espName, strings.Join(slotNames, ", "), errNoSlot)
	}
	return nil
}

func openPartition(node string) (partition, error) {
	return os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
}

func openMedium(node string) (readCloser, error) { return os.Open(node) }

// reread goes past the kernel's cache.
func reread(node string) (readCloser, error) {
	f, err := os.OpenFile(node, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	return &direct{f, aligned(block)}, nil
}

// block is how much is read at once, and what reads begin at.
const block = 1 << 20

// direct reads whole blocks of a device. It keeps the last.
type direct struct {
	*os.File
	buffer []byte
}

// aligned is memory that O_DIRECT takes.
func aligned(size int) []byte {
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, size) // the read will say so
	}
	return b
}

// ReadAt reads with whole blocks around what is wanted.
func (d *direct) ReadAt(p []byte, at int64) (n int, err error) {
	for n < len(p) {
		from := (at + int64(n)) / block * block
		got, err := d.File.ReadAt(d.buffer, from)
		skip := int(at + int64(n) - from)
		if got <= skip {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		n += copy(p[n:], d.buffer[skip:got])
		if err != nil && n < len(p) && !errors.Is(err, io.EOF) {
			return n, err
		}
	}
	return n, nil
}

// Close closes the device.
func (d *direct) Close() error {
	return errors.Join(unix.Munmap(d.buffer), d.File.Close())
}
