package iso

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/grub"
)

// volume is a medium being written.
type volume struct {
	Spec
	size, esp, upgrade int64 // bytes; upgrade is 0 without one
}

// both puts v in both byte orders, as ECMA-119 has its numbers.
func both(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func both16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}

// primary returns the primary volume descriptor (ECMA-119, 8.4). Its offsets are the standard's
// byte positions less one.
func (v volume) primary() []byte {
	b := make([]byte, sector)
	copy(b, "\x01CD001\x01")
	fill := func(from, to int, s string) { copy(b[from:to], s+strings.Repeat(" ", to-from)) }
	fill(8, 40, "")
	fill(40, 72, v.Label)
	both(b[80:], uint32(v.size/sector))
	both16(b[120:], 1) // volumes in the set
	both16(b[124:], 1) // number of this one
	both16(b[128:], sector)
	both(b[132:], uint32(len(pathTable(false))))
	binary.LittleEndian.PutUint32(b[140:], pathsLLBA)
	binary.BigEndian.PutUint32(b[148:], pathsMLBA)
	copy(b[156:], v.record("\x00", rootLBA, sector))
	fill(190, 318, "")                   // volume set
	fill(318, 446, "")                   // publisher
	fill(446, 574, "")                   // preparer
	fill(574, 702, "COSI")               // application
	fill(702, 813, "")                   // copyright, abstract and bibliographic files
	for _, at := range []int{813, 830} { // created, modified
		copy(b[at:], v.Time.UTC().Format("20060102150405")+"00\x00")
	}
	for _, at := range []int{847, 864} { // expires, effective: not said
		copy(b[at:], strings.Repeat("0", 16)+"\x00")
	}
	b[881] = 1 // version of the file structure
	return b
}

// record returns a directory record (9.1). The names "\x00" and "\x01" are the directory itself
// and its parent.
func (v volume) record(name string, lba, size int64) []byte {
	n := (33 + len(name) + 1) / 2 * 2
	b := make([]byte, n)
	b[0] = byte(n)
	both(b[2:], uint32(lba))
	both(b[10:], uint32(size))
	t := v.Time.UTC()
	copy(b[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	if name < "\x02" {
		b[25] = 2 // a directory
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	copy(b[33:], name)
	return b
}

// root returns the only directory. El Torito does not need it; people and tools that look into
// the volume find its parts there.
func (v volume) root() []byte {
	b := make([]byte, 0, sector)
	b = append(b, v.record("\x00", rootLBA, sector)...)
	b = append(b, v.record("\x01", rootLBA, sector)...)
	b = append(b, v.record("BOOT.CAT;1", catalogLBA, sector)...)
	b = append(b, v.record("ESP.IMG;1", espLBA, v.esp)...)
	if v.Loader != nil {
		b = append(b, v.record("GRUB.IMG;1", loaderLBA, v.Loader.CDSize())...)
	}
	if v.upgrade > 0 {
		b = append(b, v.record(upgrade.MediumFile+";1", espLBA+v.esp/sector, v.upgrade)...)
	}
	return b[:sector]
}

// pathTable returns the path table (9.4) with its one directory.
func pathTable(big bool) []byte {
	b := make([]byte, 10)
	b[0] = 1 // length of the name, which is "\x00"
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	order.PutUint32(b[2:], rootLBA)
	order.PutUint16(b[6:], 1)
	return b
}

// bootRecord returns El Torito's volume descriptor, which says where the catalog is.
func bootRecord() []byte {
	b := make([]byte, sector)
	copy(b, "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], catalogLBA)
	return b
}

// Platforms of a boot catalog.
const (
	platformBIOS = 0
	platformEFI  = 0xef
)

// catalog returns the boot catalog: what a BIOS boots, if there is something, and what UEFI does.
func (v volume) catalog() []byte {
	// UEFI's count, of sectors of 512, has 16 bits, too few. It takes 0 for "up to the volume's end".
	if v.Loader == nil {
		return append(validation(platformEFI), entry(0, espLBA)...)
	}
	section := make([]byte, 32)
	section[0] = 0x91 // the last header
	section[1] = platformEFI
	section[2] = 1 // entry
	copy(section[4:], "COSI")
	const loads = grub.CDCode / 512
	return slices.Concat(validation(platformBIOS), entry(loads, loaderLBA), section, entry(0, espLBA))
}

// validation returns the catalog's first entry, which names the platform of the second.
func validation(platform byte) []byte {
	b := make([]byte, 32)
	b[0] = 1
	b[1] = platform
	copy(b[4:], "COSI")
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum) // all words sum to zero
	return b
}

// entry returns a boot image's entry: how many sectors of 512 bytes the firmware loads, and where they lie.
func entry(count uint16, lba uint32) []byte {
	e := make([]byte, 32)
	e[0] = 0x88 // bootable; no emulation
	binary.LittleEndian.PutUint16(e[6:], count)
	binary.LittleEndian.PutUint32(e[8:], lba)
	return e
}
