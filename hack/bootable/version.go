package bootable

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
)

// Version is all that it takes to boot one.
type Version struct {
	Name   string
	Root   verity.Hash
	Slot   []byte // the root's image and its hash tree
	Kernel []byte
	GRUB   []byte // how GRUB boots it; nil if no BIOS does
}

// Is reports whether both are the same version.
func (v Version) Is(other Version) bool { return v.Root == other.Root }

// ReadUpgrade reads the version that the file of an upgrade holds. It fails if that is not whole, or its hash tree is not that of its root.
func ReadUpgrade(file string) (Version, error) {
	v, err := readUpgrade(file)
	if err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

func readUpgrade(file string) (v Version, err error) {
	f, err := os.Open(file)
	if err != nil {
		return v, err
	}
	defer f.Close()
	u, err := upgrade.Open(f)
	if err != nil {
		return v, err
	}
	var slot, kernel bytes.Buffer
	if err := errors.Join(u.Root(&slot), u.Kernel(&kernel)); err != nil {
		return v, err
	}
	is := u.Manifest
	v = Version{Name: is.Version, Slot: slot.Bytes(), Kernel: kernel.Bytes(), GRUB: []byte(is.BIOS)}
	if v.Root, err = verity.ParseHash(is.Root.Hash); err != nil {
		return v, err
	}
	tree, root, err := verity.Make(bytes.NewReader(v.Slot), is.Root.Data)
	if err == nil && (root != v.Root || !bytes.Equal(tree, v.Slot[is.Root.Data:])) {
		err = errors.New("its hash tree is not that of its root")
	}
	return v, err
}

// Installed returns the version that a disk boots, whose root is in its first slot.
func (d *Disk) Installed() (v Version, err error) {
	choices, err := d.systemdBoot()
	if err != nil {
		return v, err
	}
	if len(choices) == 0 {
		return v, errors.New("no version")
	}
	v = Version{Name: choices[0].version, Root: choices[0].root}
	e := bootentry.Entry{Root: v.Root}
	if v.Kernel, err = d.esp.Read(e.Kernel(), most); err != nil {
		return v, err
	}
	if v.GRUB, err = d.esp.Read(e.GRUBFile(), most); err != nil {
		return v, err
	}
	v.Slot = make([]byte, d.slots[slotNames[0]].Size())
	if _, err := d.slots[slotNames[0]].ReadAt(v.Slot, 0); err != nil {
		return v, err
	}
	v.Slot = bytes.TrimRight(v.Slot, "\x00") // what is behind the tree
	return v, nil
}

// most is how large a file may be.
const most = 256 << 20

// Add puts a version into the second slot of a disk of size bytes that has one in its first, as if that had been upgraded from it.
func (v Version) Add(disk *os.File, size int64) error {
	table, err := gpt.Read(disk, size)
	if err != nil {
		return err
	}
	for _, p := range table.Partitions {
		w := io.NewOffsetWriter(disk, p.Start)
		switch p.Name {
		case slotNames[1]:
			_, err = w.WriteAt(v.Slot, 0)
		case espName:
			err = v.boot(writable{io.NewSectionReader(disk, p.Start, p.End-p.Start), w})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// writable is a partition.
type writable struct {
	io.ReaderAt
	io.WriterAt
}

func (writable) Sync() error { return nil }

// boot adds the files that boot it, with the number of an entry that no image has.
func (v Version) boot(esp writable) error {
	system, err := fat.Open(esp)
	if err != nil {
		return err
	}
	e := bootentry.Entry{Number: 0, State: bootentry.Good, Version: v.Name, Root: v.Root}
	for path, content := range map[string][]byte{e.Kernel(): v.Kernel, e.GRUBFile(): v.GRUB, e.Path(): []byte(e.Text())} {
		if err := system.Write(path, int64(len(content)), bytes.NewReader(content), time.Now()); err != nil {
			return err
		}
	}
	return nil
}
