package upgrade

import (
	"io"
	"slices"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
)

// keeping is what the first sector says in place of begun while an installation keeps the state. An installation that keeps nothing does not take
// such a disk: the state is all there.
const keeping = "COSI is being installed on this disk, and its state is kept.\n"

// newState is the name of a state partition that holds nothing of value: see package engine/disk.
const newState = "state-new"

// kept is what an installation leaves as it is: the state partition, and what lies behind it.
type kept struct {
	// table is the disk's, without what lies before the state partition.
	table *gpt.Table
	// start is where the state partition begins.
	start int64
}

// keep says what an installation that keeps the state leaves of a disk. It fails with errRefused if there is no state.
func (i *installer) keep(t target, d io.ReaderAt, holds contents) (*kept, error) {
	if i.fingerprint != "" && i.fingerprint != holds.fingerprint {
		return nil, refused("%s holds %s; its fingerprint is %s, and not the one that is quoted", t, holds, holds.fingerprint)
	}
	table, err := gpt.Read(d, t.size)
	if err != nil {
		return nil, refused("%s has no state that could be kept, and no whole partition table: it holds %s", t, holds)
	}
	at, all := -1, 0
	for n, p := range table.Partitions {
		if isState(p) {
			at, all = n, all+1
		}
	}
	switch {
	case all == 0:
		return nil, refused("%s has no state that could be kept: it holds %s", t, holds)
	case all > 1:
		return nil, refused("%s has %d state partitions, and one could be kept", t, all)
	}
	k := &kept{table, table.Partitions[at].Start}
	for n, p := range table.Partitions {
		if p.Start < k.start {
			table.Partitions[n] = gpt.Partition{}
		}
	}
	return k, nil
}

// isState reports whether a partition holds the state of a node.
func isState(p gpt.Partition) bool { return p.Type == gpt.State && p.Name != newState }

// partitions are those that stay, the state first.
func (k *kept) partitions() []gpt.Partition {
	all := slices.DeleteFunc(slices.Clone(k.table.Partitions), func(p gpt.Partition) bool { return p.Type == (gpt.GUID{}) })
	slices.SortFunc(all, func(a, b gpt.Partition) int { return int((a.Start - b.Start) / gpt.Sector) })
	return all
}

// begin says on the disk what happens. Then it has the partition table name what is kept and nothing else: each write leaves one copy of the table, at
// least, that names the state, and up to the first of them the system that was there is whole.
func (k *kept) begin(c *chosen) error {
	first := make([]byte, gpt.Sector)
	copy(first, keeping)
	if _, err := c.disk.WriteAt(first, 0); err != nil {
		return err
	}
	if err := c.disk.Sync(); err != nil {
		return err
	}
	if err := k.table.WriteCopies(c.disk, c.size); err != nil {
		return err
	}
	// Behind the table, where other boot loaders keep a part of themselves.
	if _, err := c.disk.WriteAt(make([]byte, mib-upgrade.HeadSize), upgrade.HeadSize); err != nil {
		return err
	}
	return c.disk.Sync()
}

// preflight refuses a version that would overwrite the state, and one that the disk has already: a node that is booted from its medium again and again
// would install it each time. A fingerprint has that done.
func (k *kept) preflight(i *installer, c *chosen, is upgrade.Manifest) error {
	if end := endOf(is.Disk); k.start < end {
		return refused("the partitions of version %s end at %s, and the state partition of %s begins at %s: it would be overwritten",
			is.Version, bytesOf(end), c, bytesOf(k.start))
	}
	if i.fingerprint == "" && c.boots(is, i.firmware) {
		return refused("%s has version %s already, whole, beside its state; to have it installed again, quote fingerprint: %s", c, is.Version, c.holds.fingerprint)
	}
	return nil
}

// endOf is where what is written of an image ends. Its last MiB is the copy of its partition table, which belongs at the end of the disk.
func endOf(d *upgrade.Disk) int64 {
	end := d.Image - mib
	for _, p := range d.Pieces {
		end = max(end, p.At+p.Size+p.Zeros)
	}
	return end
}

// boots reports whether a disk boots a version: firmware reads it, and the version's entry is good, its kernel and its root are whole. What cannot be
// read boots nothing.
func (c *chosen) boots(is upgrade.Manifest, firmware string) bool {
	end := make([]byte, 2) // of the first sector
	table, err := gpt.Read(c.disk, c.size)
	if _, failed := c.disk.ReadAt(end, gpt.Sector-2); failed != nil || err != nil || table.Backup || end[0] != 0x55 || end[1] != 0xaa {
		return false
	}
	root, err := verity.ParseHash(is.Root.Hash)
	if err != nil {
		return false
	}
	var kernelThere, rootThere bool
	for _, p := range table.Partitions {
		content := io.NewSectionReader(c.disk, p.Start, p.End-p.Start)
		switch {
		case p.Name == espName:
			kernelThere = kernelThere || bootsKernel(content, root, is.Kernel, firmware)
		case slices.Contains(slotNames, p.Name):
			rootThere = rootThere || is.Root.Check(io.NewSectionReader(content, 0, is.Root.Size)) == nil
		}
	}
	return kernelThere && rootThere
}

// bootsKernel reports whether an EFI system partition has a good entry for a root, and its kernel, whole.
func bootsKernel(esp *io.SectionReader, root verity.Hash, is upgrade.Part, firmware string) bool {
	system, err := fat.Open(seen{esp})
	if err != nil {
		return false
	}
	all, err := readEntries(system, firmware)
	e, there := all.of(root)
	if err != nil || !there || e.State != bootentry.Good {
		return false
	}
	pieces, err := system.Pieces(e.Kernel())
	if err != nil {
		return false
	}
	var content []io.Reader
	for _, p := range pieces {
		content = append(content, io.NewSectionReader(esp, p.Offset, p.Size))
	}
	return is.Check(io.MultiReader(content...)) == nil
}
