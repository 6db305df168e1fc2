package iso

import (
	"encoding/binary"
	"strings"
)

// volume is a medium being written.
type volume struct {
	Spec
	size, esp int64 // bytes
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
// the volume find its two parts there.
func (v volume) root() []byte {
	b := make([]byte, 0, sector)
	b = append(b, v.record("\x00", rootLBA, sector)...)
	b = append(b, v.record("\x01", rootLBA, sector)...)
	b = append(b, v.record("BOOT.CAT;1", catalogLBA, sector)...)
	b = append(b, v.record("ESP.IMG;1", espLBA, v.esp)...)
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

// catalog returns the boot catalog: one entry, for UEFI.
func catalog() []byte {
	b := make([]byte, sector)
	b[0] = 1    // validation entry
	b[1] = 0xef // platform: EFI
	copy(b[4:], "COSI")
	b[30], b[31] = 0x55, 0xaa
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum) // all words sum to zero
	e := b[32:]
	e[0] = 0x88 // bootable; no emulation
	// The count has 16 bits, in sectors of 512, too few. UEFI takes 0 for "up to the volume's end".
	binary.LittleEndian.PutUint16(e[6:], 0)
	binary.LittleEndian.PutUint32(e[8:], espLBA)
	return b
}
