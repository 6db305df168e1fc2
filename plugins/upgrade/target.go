package upgrade

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/upgrade"
)

// target is a disk that a version may be installed on.
type target struct {
	name, node string
	size       int64
	sector     uint32 // bytes
}

func (t target) String() string { return fmt.Sprintf("%s (%s)", t.node, bytesOf(t.size)) }

// bytesOf is a size as people read it.
func bytesOf(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// installer installs a version on a disk.
type installer struct {
	firmware string
	// all are the disks that the Installation's selector matches; one of them must be no medium and not in use.
	all []target
	// media are the device nodes that may be an installation medium.
	media       []string
	fingerprint string // of what may be lost
	keepState   bool   // the state partition stays: see kept
	userData    string // for the first boot from the disk; empty: none

	// open opens a disk for writing, and none of which anything is in use.
	open func(node string) (partition, error)
	// reread opens a disk for reading what is on the medium, not what is kept of it in memory.
	reread func(node string) (readCloser, error)
	// read opens a medium.
	read func(node string) (readCloser, error)
	// found is told what was chosen, and what it holds.
	found func(t target, holds contents)
}

// chosen is the disk that is written to.
type chosen struct {
	target
	disk  partition
	holds contents
	kept  *kept // nil: nothing is
}

// errReadOnly is that of a disk that is looked at.
var errReadOnly = errors.New("it is only looked at")

// choose opens the one disk. It fails with errRefused if there is more than one, or if it holds something that is not to be lost.
func (i *installer) choose() (*chosen, error) {
	var fit []*chosen
	var names []string
	var broken error
	for _, t := range i.all {
		d, err := i.open(t.node)
		var is contents
		if err == nil {
			is, err = inspect(d, t.size)
		}
		switch {
		case err != nil:
			broken = fmt.Errorf("%s: %w", t.node, err)
		case is.medium:
			d.Close()
			continue
		default:
			fit = append(fit, &chosen{target: t, disk: d, holds: is})
		}
		names = append(names, t.String())
	}
	err := broken
	switch {
	case len(names) == 0:
		err = errors.New("no disk matches but the medium that the node was booted from")
	case len(names) > 1:
		err = refused("%d disks match, and exactly one must: %s", len(names), strings.Join(names, ", "))
	case err == nil:
		i.found(fit[0].target, fit[0].holds)
		err = i.mayWrite(fit[0])
	}
	if err != nil {
		for _, f := range fit {
			f.disk.Close()
		}
		return nil, err
	}
	return fit[0], nil
}

// mayWrite refuses a disk that holds something, unless that is what may be lost, or its state is kept.
func (i *installer) mayWrite(c *chosen) (err error) {
	switch holds := c.holds; {
	case c.sector != gpt.Sector:
		return refused("%s has sectors of %d bytes; want %d", c, c.sector, gpt.Sector)
	case i.keepState:
		c.kept, err = i.keep(c.target, c.disk, holds)
		return err
	case len(holds.found) == 0 || holds.fingerprint == i.fingerprint:
		return nil
	case i.fingerprint != "":
		return refused("%s holds %s; its fingerprint is %s, and not the one that is quoted", c, holds, holds.fingerprint)
	case holds.state:
		return refused("%s holds %s; to keep its state, say keep_state; to lose all of it, quote fingerprint: %s", c, holds, holds.fingerprint)
	default:
		return refused("%s holds %s; to lose that, quote fingerprint: %s", c, holds, holds.fingerprint)
	}
}

// install writes what source brings on the disk. Up to the end the disk says that it is begun: nothing boots it, and another installation takes it, if
// it keeps what this one does. It fails with errRefused before anything is written, with errBroken when what arrived is not whole and right, and
// otherwise with what made source fail.
func (i *installer) install(c *chosen, source io.Reader, t terms, opened func(upgrade.Manifest)) error {
	in := newInput(source)
	var head []byte
	u, err := upgrade.Open(in)
	if err == nil {
		opened(u.Manifest)
		if err = i.preflight(c, u, t); err != nil {
			return err
		}
		head, err = i.write(c, u)
	}
	if err := in.end(err, t.digest); err != nil {
		return err
	}
	if err := i.finish(c, head, u.Manifest); err != nil {
		return fmt.Errorf("%w: %s: %w", errBroken, c.node, err)
	}
	return nil
}

// preflight refuses what will not do.
func (i *installer) preflight(c *chosen, u *upgrade.Reader, t terms) error {
	is := u.Manifest
	if err := t.allow(u); err != nil {
		return err
	}
	switch {
	case is.Disk == nil:
		return refused("it is for upgrades alone: build it again")
	case i.firmware == bios && is.BIOS == "":
		return refused("no BIOS boots it, and this node was booted by one")
	case c.size < is.Disk.Image:
		return refused("it takes a disk of %s, and %s has less", bytesOf(is.Disk.Image), c)
	case c.kept != nil:
		return c.kept.preflight(i, c, is)
	}
	return nil
}

// write writes all but the head, and checks it.
func (i *installer) write(c *chosen, u *upgrade.Reader) (head []byte, err error) {
	if err := c.begin(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.node, err)
	}
	d := u.Manifest.Disk
	if err := u.Root(io.NewOffsetWriter(c.disk, d.RootAt)); err != nil {
		return nil, err
	}
	if err := u.Kernel(io.NewOffsetWriter(c.disk, d.KernelAt)); err != nil {
		return nil, err
	}
	if head, err = u.Disk(c.disk); err != nil {
		return nil, err
	}
	if err := errors.Join(u.Close(), c.disk.Sync()); err != nil {
		return nil, err
	}
	there, err := i.reread(c.node)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := u.Manifest.Check(there, head); err != nil {
		return nil, fmt.Errorf("%s, read back: %w", c.node, err)
	}
	return head, nil
}

// begin says on the disk what happens, and removes the partition tables, or what they say of all that is not kept.
func (c *chosen) begin() error {
	if c.kept != nil {
		return c.kept.begin(c)
	}
	nothing := make([]byte, mib)
	first := make([]byte, gpt.Sector)
	copy(first, begun)
	if _, err := c.disk.WriteAt(first, 0); err != nil {
		return err
	}
	if err := c.disk.Sync(); err != nil { // what was there is not half there, whatever happens
		return err
	}
	if _, err := c.disk.WriteAt(nothing[gpt.Sector:], gpt.Sector); err != nil {
		return err
	}
	if _, err := c.disk.WriteAt(nothing, c.size-mib); err != nil {
		return err
	}
	return c.disk.Sync()
}

// finish makes the disk one to boot from: its partition table, with identifiers of its own, and at last the first sector, which a BIOS starts and
// without which UEFI reads no table.
func (i *installer) finish(c *chosen, head []byte, is upgrade.Manifest) error {
	table, err := gpt.Read(bytes.NewReader(head), is.Disk.Image)
	if err != nil {
		return err
	}
	if err := i.placeUserData(c, table); err != nil {
		return err
	}
	table.DiskGUID = newGUID()
	for n := range table.Partitions {
		table.Partitions[n].GUID = newGUID()
	}
	if c.kept != nil {
		table.Partitions = append(table.Partitions, c.kept.partitions()...)
	}
	if is.BIOS != "" {
		table.Code = head[:gpt.CodeSize]
	} else {
		table.Code = make([]byte, gpt.CodeSize) // in place of what says that it is begun
	}
	if err := table.Write(c.disk, c.size); err != nil {
		return err
	}
	there, err := i.reread(c.node)
	if err != nil {
		return err
	}
	defer there.Close()
	got, err := gpt.Read(there, c.size)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if got.Backup || got.Moved || got.DiskGUID != table.DiskGUID || !slices.Equal(got.Partitions, table.Partitions) {
		return errors.New("read back: another partition table")
	}
	return nil
}

// medium is the file that an installation medium brings, as long as it is open.
type medium struct {
	*upgrade.Medium
	io.Closer
}

// medium finds the one medium. It fails if there is none, or if there are two with different files. What cannot be read is none.
func (i *installer) medium() (*medium, error) {
	var found []*medium
	var where []string
	err := upgrade.ErrNoMedium
	for _, node := range i.media {
		d, failed := i.read(node)
		var is *upgrade.Medium
		if failed == nil {
			if is, failed = upgrade.OpenMedium(d); failed != nil {
				d.Close()
			}
		}
		switch {
		case failed == nil:
			found, where = append(found, &medium{is, d}), append(where, node)
		case !errors.Is(failed, upgrade.ErrNoMedium):
			err = fmt.Errorf("%s: %w", node, failed)
		}
	}
	if len(found) == 0 {
		return nil, err
	}
	same := true
	for _, m := range found[1:] {
		same = same && m.Digest == found[0].Digest
		m.Close()
	}
	if !same {
		found[0].Close()
		return nil, fmt.Errorf("installation media with different files: %s", strings.Join(where, ", "))
	}
	return found[0], nil
}

// userDataFile is where a node looks for user data on its EFI system partition.
const userDataFile = "user-data.yaml"

// placeUserData writes the user data beside the boot loader, and reads it back.
func (i *installer) placeUserData(c *chosen, table *gpt.Table) error {
	n := slices.IndexFunc(table.Partitions, func(p gpt.Partition) bool { return p.Name == espName })
	if n < 0 || i.userData == "" {
		return nil
	}
	esp := table.Partitions[n]
	system, err := fat.Open(within{c.disk, esp.Start})
	if err != nil {
		return err
	}
	if err := system.Write(userDataFile, int64(len(i.userData)), strings.NewReader(i.userData), time.Now()); err != nil {
		return err
	}
	there, err := i.reread(c.node)
	if err != nil {
		return err
	}
	defer there.Close()
	if system, err = fat.Open(seen{io.NewSectionReader(there, esp.Start, esp.End-esp.Start)}); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	if got, err := system.Read(userDataFile, int64(len(i.userData))); err != nil || string(got) != i.userData {
		return fmt.Errorf("read back: other user data: %w", err)
	}
	return nil
}

// within is a part of a disk that begins at a place.
type within struct {
	partition
	start int64
}

func (w within) ReadAt(p []byte, at int64) (int, error) { return w.partition.ReadAt(p, w.start+at) }

func (w within) WriteAt(p []byte, at int64) (int, error) { return w.partition.WriteAt(p, w.start+at) }

// newGUID is a random one (version 4).
func newGUID() (g gpt.GUID) {
	rand.Read(g[:])
	g[7], g[8] = g[7]&0x0f|0x40, g[8]&0x3f|0x80
	return g
}
