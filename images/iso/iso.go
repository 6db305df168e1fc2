// Package iso writes a node's installation medium: an ISO 9660 volume (ECMA-119) that UEFI boots
// through El Torito ("El Torito" Bootable CD-ROM Format Specification 1.0; UEFI Specification
// 2.10, 13.3.2). The image builder calls it. The same Spec gives the same bytes.
//
// The volume holds one boot image, a FAT file system with the files of an EFI system partition.
// A partition table in the system area names it too, so that the same bytes boot from a USB stick.
//
// The volume is written here and not by go-diskfs: that copies the boot image twice more (0.32 s for
// 44 MB) and writes the time of day into its descriptors and records.
package iso

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/gpt"
)

// Spec is what a medium holds.
type Spec struct {
	Label    string // of the volume: at most 32 of A-Z, 0-9 and _
	VolumeID uint32 // of the boot image
	ESP      []fat.File
	Time     time.Time
}

const (
	sector = 2048
	mib    = 1 << 20
)

// Where things lie, in sectors.
const (
	primaryLBA    = 16 // fixed by ECMA-119
	bootRecordLBA = 17 // fixed by El Torito
	terminatorLBA = 18
	pathsLLBA     = 19
	pathsMLBA     = 20
	rootLBA       = 21
	catalogLBA    = 22
	espLBA        = mib / sector // on a USB stick it is a partition: give it a whole MiB
)

// Write writes the medium of s into f, which is empty.
func (s Spec) Write(f *os.File) error {
	if err := s.write(f); err != nil {
		return fmt.Errorf("ISO: %w", err)
	}
	return nil
}

func (s Spec) write(f *os.File) error {
	if err := checkLabel(s.Label); err != nil {
		return err
	}
	esp := s.espSize()
	size := mib + esp + mib // the last MiB holds the copy of the partition table
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := s.table(esp).Write(f, size); err != nil {
		return err
	}
	v := volume{Spec: s, size: size, esp: esp}
	for _, p := range []struct {
		lba  int64
		data []byte
	}{
		{primaryLBA, v.primary()},
		{bootRecordLBA, bootRecord()},
		{terminatorLBA, []byte("\xffCD001\x01")},
		{pathsLLBA, pathTable(false)},
		{pathsMLBA, pathTable(true)},
		{rootLBA, v.root()},
		{catalogLBA, catalog()},
	} {
		if _, err := f.WriteAt(p.data, p.lba*sector); err != nil {
			return err
		}
	}
	o := fat.Options{Label: "ESP", VolumeID: s.VolumeID, Time: s.Time, Start: espLBA * sector}
	return fat.Write(io.NewOffsetWriter(f, espLBA*sector), esp, s.ESP, o)
}

// espSize returns a size in whole MiB with room for the files in clusters of 512 bytes: each has 4
// bytes in both FATs, under 2 %. A MiB is for directories.
func (s Spec) espSize() int64 {
	var n int64
	for _, f := range s.ESP {
		if f.Content != nil {
			n += f.Content.Size() + 4096
		}
	}
	n += n/50 + mib
	return max((n+mib-1)/mib*mib, fat.MinSize)
}

// table names the boot image as a partition. The GUIDs only have to differ from those of other
// disks in the machine, and follow from the volume ID to be the same in each build.
func (s Spec) table(esp int64) gpt.Table {
	return gpt.Table{
		DiskGUID: fmt.Sprintf("%08X-C051-4000-8000-000000000000", s.VolumeID),
		Partitions: []gpt.Partition{{
			Type: gpt.TypeESP, GUID: fmt.Sprintf("%08X-C051-4000-8000-000000000001", s.VolumeID),
			Name: "esp", Start: espLBA * sector, End: espLBA*sector + esp,
		}},
	}
}

func checkLabel(label string) error {
	ok := label != "" && len(label) <= 32
	for _, c := range []byte(label) {
		ok = ok && (c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_')
	}
	if !ok {
		return fmt.Errorf("label %q: want 1 to 32 of A-Z, 0-9 and _", label)
	}
	return nil
}
