// Package bootable says which version a disk boots next, and whether all that this takes is there. The drill in hack/soak/kills asks it about
// disks whose node lost its power in the middle of an upgrade, and the VM tests do.
//
// It is a judge: it knows the boot managers by their documentation, and shares with the node no more than how a file system, an entry and a hash
// tree are read.
package bootable

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// Firmware is who starts the boot manager.
type Firmware string

// UEFI starts systemd-boot, and a BIOS GRUB.
const (
	UEFI Firmware = "UEFI"
	BIOS Firmware = "BIOS"
)

// Next is what a disk boots.
type Next struct {
	Version Version
	State   bootentry.State
	Slot    string // name of the partition with the root
}

// Disk is one that does not change.
type Disk struct {
	r     *io.SectionReader // the partition esp
	esp   *fat.FS
	slots map[string]*io.SectionReader // by name
}

// Names of partitions.
const espName = "esp"

var slotNames = []string{"root-a", "root-b"}

// Open reads a disk of size bytes. It fails unless it has the partitions of a node, and the file system that the firmware reads.
func Open(r io.ReaderAt, size int64) (*Disk, error) {
	table, err := gpt.Read(r, size)
	if err != nil {
		return nil, err
	}
	d := &Disk{slots: map[string]*io.SectionReader{}}
	for _, p := range table.Partitions {
		section := io.NewSectionReader(r, p.Start, p.End-p.Start)
		switch {
		case p.Name == espName:
			d.r = section
			if d.esp, err = fat.Open(readOnly{section}); err != nil {
				return nil, fmt.Errorf("%s: %w", p.Name, err)
			}
		case slices.Contains(slotNames, p.Name):
			d.slots[p.Name] = section
		}
	}
	if d.esp == nil || len(d.slots) != len(slotNames) {
		return nil, fmt.Errorf("no partitions %s and %s", espName, strings.Join(slotNames, ", "))
	}
	return d, nil
}

// readOnly is a partition that nobody writes to.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
func (readOnly) Sync() error                        { return nil }

// choice is a root that the boot manager may start.
type choice struct {
	root    verity.Hash
	state   bootentry.State
	version string // that its entry names; GRUB has none
}

// Next returns which of the versions is booted next. It fails if that is none of them, or is not there whole. So must be all that would be booted
// after it, of which one has to be good.
func (d *Disk) Next(firmware Firmware, versions ...Version) (next Next, err error) {
	choices, err := d.choices(firmware)
	if err != nil {
		return next, err
	}
	good := false
	for i, c := range choices {
		of, err := d.whole(c, firmware, versions)
		if i == 0 {
			next = of
		}
		if err != nil {
			return next, fmt.Errorf("%d of %d: %w", i+1, len(choices), err)
		}
		good = good || c.state == bootentry.Good
	}
	if !good {
		return next, fmt.Errorf("%d entries, and none is good", len(choices))
	}
	return next, nil
}

// choices are the roots that may be started, in the order in which they are, without those that have no tries left.
func (d *Disk) choices(firmware Firmware) ([]choice, error) {
	if firmware == BIOS {
		return d.grub()
	}
	return d.systemdBoot()
}

// grub does what images/grub's configuration of a disk does.
func (d *Disk) grub() (all []choice, err error) {
	data, err := d.esp.Read(bootentry.EnvFile, 4096)
	if err != nil {
		return nil, err
	}
	env, err := bootentry.ParseEnv(data)
	if err != nil {
		return nil, err
	}
	if env.Left > 0 {
		all = append(all, choice{root: env.Trial, state: bootentry.Trying})
	}
	return append(all, choice{root: env.Good, state: bootentry.Good}), nil
}

// systemdBoot does what systemd-boot does (config_entry_compare in its source): the highest number comes first. Two names of one number boot
// the same.
func (d *Disk) systemdBoot() (all []choice, err error) {
	files, err := d.esp.List(bootentry.Dir)
	if err != nil {
		return nil, err
	}
	var entries []bootentry.Entry
	for _, file := range files {
		text, err := d.esp.Read(bootentry.Dir+"/"+file.Name, 4096)
		if err != nil {
			return nil, err
		}
		e, err := bootentry.Parse(file.Name, string(text))
		if err != nil {
			return nil, err
		}
		if e.State != bootentry.Bad {
			entries = append(entries, e)
		}
	}
	slices.SortStableFunc(entries, func(a, b bootentry.Entry) int { return cmp.Compare(b.Number, a.Number) })
	for _, e := range entries {
		all = append(all, choice{e.Root, e.State, e.Version})
	}
	return all, nil
}

// whole finds a version that may be started, and fails unless its kernel, what GRUB boots it by, and its root are as they should be.
func (d *Disk) whole(c choice, firmware Firmware, versions []Version) (Next, error) {
	i := slices.IndexFunc(versions, func(v Version) bool { return v.Root == c.root })
	if i < 0 {
		return Next{}, fmt.Errorf("root %s: of no version that there is", c.root)
	}
	next := Next{Version: versions[i], State: c.state}
	e := bootentry.Entry{Root: c.root}
	if err := d.holds(e.Kernel(), next.Version.Kernel); err != nil {
		return next, fmt.Errorf("version %s: %w", next.Version.Name, err)
	}
	if firmware == BIOS {
		if err := d.holds(e.GRUBFile(), next.Version.GRUB); err != nil {
			return next, fmt.Errorf("version %s: %w", next.Version.Name, err)
		}
	}
	for _, name := range slotNames {
		there := make([]byte, len(next.Version.Slot))
		if n, _ := d.slots[name].ReadAt(there, 0); n == len(there) && bytes.Equal(there, next.Version.Slot) {
			next.Slot = name
			return next, nil
		}
	}
	return next, fmt.Errorf("version %s: no slot holds its root", next.Version.Name)
}

// holds fails unless a file has just this content.
func (d *Disk) holds(path string, want []byte) error {
	got, err := d.esp.Read(path, int64(len(want)))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s: not the %d bytes that it should be", path, len(want))
	}
	return err
}
