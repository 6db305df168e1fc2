// Package disk writes the raw image of a node's disk: a GUID partition table, the EFI system
// partition with its files, and two slots for root images. The image builder calls it. The
// file is sparse: only what is used is written. The same Spec gives the same bytes.
//
//	   MBR                 GRUB's first stage
//	1  bios-boot    1 MiB  its second, which reads its configuration from the ESP
//	2  esp        256 MiB  FAT32, /EFI/BOOT/BOOTX64.EFI and what else the firmware reads
//	3  root-a     256 MiB  may stay empty
//	4  root-b     256 MiB  may stay empty
//	   the rest            the node makes partition 5, its state, there on first boot
package disk

import (
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

// Where the partitions lie, the same on every disk. Each begins at a whole MiB, which suits
// the erase blocks of flash; the last MiB holds the table's copy.
const (
	biosStart = 1 * mib
	espStart  = 2 * mib
	rootA     = espStart + 256*mib
	rootB     = rootA + 256*mib
	end       = rootB + 256*mib

	// Size is the size of every image. A disk is larger: the node moves the copy of its
	// partition table to the disk's end when it makes its state partition.
	Size = end + 1*mib
)

// Spec is what a disk holds.
type Spec struct {
	DiskGUID       string
	PartitionGUIDs [4]string    // in the order of the partitions
	Loader         *grub.Loader // nil: no BIOS boots it
	VolumeID       uint32       // of the ESP
	ESP            []fat.File
	Roots          [2]content.Content // A and B; nil leaves the slot empty
	Time           time.Time          // of the files of the ESP
}

// Write writes the image of s into f, which is empty, and leaves it Size bytes long.
func (s Spec) Write(f *os.File) error {
	if err := s.write(f); err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return nil
}

func (s Spec) write(f *os.File) error {
	if err := f.Truncate(Size); err != nil {
		return err
	}
	if err := s.table().Write(f, Size); err != nil {
		return err
	}
	if s.Loader != nil {
		if err := s.Loader.Install(f, biosStart, espStart); err != nil {
			return err
		}
	}
	esp := fat.Options{Label: "ESP", VolumeID: s.VolumeID, Time: s.Time, Start: espStart}
	if err := fat.Write(io.NewOffsetWriter(f, espStart), rootA-espStart, s.ESP, esp); err != nil {
		return fmt.Errorf("esp: %w", err)
	}
	for i, slot := range []struct {
		name       string
		start, end int64
	}{{"root-a", rootA, rootB}, {"root-b", rootB, end}} {
		root := s.Roots[i]
		if root == nil {
			continue
		}
		if room := slot.end - slot.start; root.Size() > room {
			return fmt.Errorf("%s: %d MiB do not fit into %d MiB", slot.name, (root.Size()+mib-1)/mib, room/mib)
		}
		if err := content.CopyAt(f, slot.start, root); err != nil {
			return fmt.Errorf("%s: %w", slot.name, err)
		}
	}
	return nil
}

func (s Spec) table() gpt.Table {
	return gpt.Table{DiskGUID: s.DiskGUID, Partitions: []gpt.Partition{
		{Type: gpt.TypeBIOSBoot, GUID: s.PartitionGUIDs[0], Name: "bios-boot", Start: biosStart, End: espStart},
		{Type: gpt.TypeESP, GUID: s.PartitionGUIDs[1], Name: "esp", Start: espStart, End: rootA},
		{Type: gpt.TypeLinuxFilesystem, GUID: s.PartitionGUIDs[2], Name: "root-a", Start: rootA, End: rootB},
		{Type: gpt.TypeLinuxFilesystem, GUID: s.PartitionGUIDs[3], Name: "root-b", Start: rootB, End: end},
	}}
}
