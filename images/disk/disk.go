// Package disk writes the raw image of a node's disk: a GUID partition table, the EFI system
// partition with its files, and two slots for root images. The image builder calls it. The
// file is sparse: only what is used is written. The same Spec gives the same bytes.
//
//	   MBR                 GRUB's first stage
//	1  bios-boot    1 MiB  its second, which reads its configuration from the ESP
//	2  esp        256 MiB  FAT32, /EFI/BOOT/BOOTX64.EFI and what else the firmware reads
//	3  root-a     256 MiB  the root's image, and the tree by which the kernel checks it
//	4  root-b     256 MiB  empty, for the root of another version
//	5  …                   what a definition adds, if it does
//	   the rest            the node makes the next partition, its state, there on first boot
//
// The sizes are those of a definition that says nothing else.
package disk

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/gpt"
	"github.com/cosi-os/cosi/images/grub"
)

const mib = 1 << 20

// Where the first partitions begin. Each begins at a whole MiB, which suits the erase blocks of flash; the last MiB holds the table's
// copy.
const (
	biosStart = 1 * mib
	espStart  = 2 * mib
)

// DefaultSize is how large an EFI system partition and each slot for a root are unless the Spec says otherwise.
const DefaultSize = 256 * mib

// Reserved are the names of the partitions that every disk has, the node's own among them.
var Reserved = []string{"bios-boot", "esp", "root-a", "root-b", "state", "state-new"}

// Spec is what a disk holds.
type Spec struct {
	DiskGUID       string
	PartitionGUIDs [4]string    // in the order of the partitions
	Loader         *grub.Loader // nil: no BIOS boots it
	VolumeID       uint32       // of the ESP
	ESP            []fat.File
	Roots          [2]content.Content // A and B; nil leaves the slot empty
	Time           time.Time          // of the files of the ESP
	// ESPSize and RootSize are bytes, whole MiB; 0 is DefaultSize.
	ESPSize, RootSize int64
	// Extra are behind the slots.
	Extra []Partition
}

// Partition is one that a definition adds.
type Partition struct {
	Name, GUID string
	Size       int64           // bytes, whole MiB
	Content    content.Content // nil leaves it empty
}

// Size is the size of the image. A disk is larger: the node moves the copy of its partition table to the disk's end when it makes its state
// partition.
func (s Spec) Size() int64 {
	all := s.table().Partitions
	return all[len(all)-1].End + mib
}

// Write writes the image of s into f, which is empty, and leaves it Size bytes long.
func (s Spec) Write(f *os.File) error {
	if err := s.write(f); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

func (s Spec) write(f *os.File) error {
	if err := f.Truncate(s.Size()); err != nil {
		return err
	}
	table := s.table()
	if err := table.Write(f, s.Size()); err != nil {
		return err
	}
	if s.Loader != nil {
		if err := s.Loader.Install(f, biosStart, espStart); err != nil {
			return err
		}
	}
	esp, slots := table.Partitions[1], table.Partitions[2:]
	options := fat.Options{Label: "ESP", VolumeID: s.VolumeID, Time: s.Time, Start: esp.Start}
	if err := fat.Write(io.NewOffsetWriter(f, esp.Start), esp.End-esp.Start, s.ESP, options); err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	contents := s.Roots[:]
	for _, extra := range s.Extra {
		contents = append(contents[:len(contents):len(contents)], extra.Content)
	}
	for i, c := range contents {
		if c == nil {
			continue
		}
		if room := slots[i].End - slots[i].Start; c.Size() > room {
			return fmt.Errorf("%s: %d MiB do not fit into %d MiB", slots[i].Name, (c.Size()+mib-1)/mib, room/mib)
		}
		if err := content.CopyAt(f, slots[i].Start, c); err != nil {
			return fmt.Errorf("%s: %w", slots[i].Name, err)
		}
	}
	return nil
}

func (s Spec) table() gpt.Table {
	t := gpt.Table{DiskGUID: s.DiskGUID}
	end := int64(biosStart)
	add := func(kind gpt.Type, guid, name string, size int64) {
		t.Partitions = append(t.Partitions, gpt.Partition{Type: kind, GUID: guid, Name: name, Start: end, End: end + size})
		end += size
	}
	add(gpt.TypeBIOSBoot, s.PartitionGUIDs[0], "bios-boot", espStart-biosStart)
	add(gpt.TypeESP, s.PartitionGUIDs[1], "esp", cmp.Or(s.ESPSize, DefaultSize))
	add(gpt.TypeLinuxFilesystem, s.PartitionGUIDs[2], "root-a", cmp.Or(s.RootSize, DefaultSize))
	add(gpt.TypeLinuxFilesystem, s.PartitionGUIDs[3], "root-b", cmp.Or(s.RootSize, DefaultSize))
	for _, extra := range s.Extra {
		add(gpt.TypeLinuxFilesystem, extra.GUID, extra.Name, extra.Size)
	}
	return t
}
