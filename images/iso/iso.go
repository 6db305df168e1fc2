// Package iso writes a node's installation medium: a file that UEFI and a BIOS boot, burnt on a CD or copied to a USB stick. The image
// builder calls it. The same Spec gives the same bytes.
//
// As a CD it is an ISO 9660 volume (ECMA-119) with two boot images ("El Torito" Bootable CD-ROM Format Specification 1.0; UEFI
// Specification 2.10, 13.3.2): GRUB for a BIOS, and a FAT file system with the files of an EFI system partition. As a stick it is a disk
// whose partition table, in what ISO 9660 leaves to the system, names the two as BIOS boot partition and ESP.
//
//	      0  MBR and partition table; the volume's descriptors from 32 KiB
//	 64 KiB  GRUB's core image, behind what loads it from a CD
//	512 KiB  ESP
//	         what a node makes the file of an upgrade of, to install it
//	         copy of the partition table, in the last 17 KiB
//
// The volume is written here and not by go-diskfs: that copies the boot image twice more (0.32 s for
// 44 MB) and writes the time of day into its descriptors and records.
package iso

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

// Spec is what a medium holds.
type Spec struct {
	Label    string // of the volume: at most 32 of A-Z, 0-9 and _
	VolumeID uint32 // of the ESP
	ESP      []fat.File
	Loader   *grub.Loader // nil: no BIOS boots it
	Time     time.Time
	// Upgrade, unless it is nil, makes the file upgrade.MediumFile for the medium, whose ESP is written; nil: there is none.
	Upgrade func(medium *os.File) (content.Content, error)
}

const (
	sector = 2048
	kib    = 1 << 10
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
	loaderLBA     = (coreStart - grub.CDCode) / sector
	espLBA        = espStart / sector
)

// On a USB stick they are partitions. A medium is downloaded, so they do not begin at whole MiB, as those of a disk do, but at what every
// stick's pages divide.
const (
	unit      = 64 * kib
	coreStart = unit
	espStart  = 512 * kib // behind the largest core image that a BIOS loads, of 444 KiB
)

// padding is what is behind the last file. The copy of the partition table is in it. A drive may fail to read the last two sectors of a CD that was
// burnt track at once, and Linux reads ahead: mkisofs leaves 150 sectors, too.
const padding = 5 * unit

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
	v := volume{Spec: s, esp: esp}
	if err := f.Truncate(espStart + esp); err != nil {
		return err
	}
	o := fat.Options{Label: "ESP", VolumeID: s.VolumeID, Time: s.Time, Start: espStart}
	if err := fat.Write(io.NewOffsetWriter(f, espStart), esp, s.ESP, o); err != nil {
		return err
	}
	end, err := v.addUpgrade(f, espStart+esp)
	if err != nil {
		return err
	}
	size := end + padding
	v.size = size
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := s.table(esp).Write(f, size); err != nil {
		return err
	}
	if s.Loader != nil {
		if err := s.Loader.Install(f, coreStart, espStart); err != nil {
			return err
		}
		if _, err := f.WriteAt(s.Loader.CD(coreStart), loaderLBA*sector); err != nil {
			return err
		}
	}
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
		{catalogLBA, v.catalog()},
	} {
		if _, err := f.WriteAt(p.data, p.lba*sector); err != nil {
			return err
		}
	}
	return nil
}

// addUpgrade writes the file of that name at a place, and returns where the medium goes on.
func (v *volume) addUpgrade(f *os.File, at int64) (end int64, err error) {
	if v.Upgrade == nil {
		return at, nil
	}
	c, err := v.Upgrade(f)
	if err != nil || c == nil {
		return at, err
	}
	v.upgrade = c.Size()
	if err := content.CopyAt(f, at, c); err != nil {
		return 0, err
	}
	return at + roundUp(c.Size()), nil
}

// espSize returns a size in whole units with room for the files in clusters of 512 bytes, each of which has 4 bytes in both FATs. What is
// left of 512 KiB by directories is for user data that somebody puts on a stick.
func (s Spec) espSize() int64 {
	var n int64
	for _, f := range s.ESP {
		if f.Content != nil {
			n += f.Content.Size() + 4*kib
		}
	}
	n += n/64 + 512*kib
	return max(roundUp(n), fat.MinSize)
}

func roundUp(n int64) int64 { return (n + unit - 1) / unit * unit }

// table names the boot images as partitions, numbered as on a node's disk. The GUIDs only have to differ from those of other
// disks in the machine, and follow from the volume ID to be the same in each build.
func (s Spec) table(esp int64) gpt.Table {
	guid := func(n int) string { return fmt.Sprintf("%08X-C051-4000-8000-%012X", s.VolumeID, n) }
	return gpt.Table{DiskGUID: guid(0), Partitions: []gpt.Partition{
		{Type: gpt.TypeBIOSBoot, GUID: guid(2), Name: "bios-boot", Start: coreStart, End: espStart},
		{Type: gpt.TypeESP, GUID: guid(1), Name: "esp", Start: espStart, End: espStart + esp},
	}}
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
