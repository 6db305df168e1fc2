// Package gpt writes GUID partition tables (UEFI Specification 2.10, chapter 5) with their
// protective MBR. The disk and ISO writers call it; the same Table and size give the same bytes.
// It writes without syncing: go-diskfs, which reads the result back in the tests, waits for the disk
// five times a table, and an image holds a lot of unwritten data by then.
package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// Sector is the logical block size of every table written here.
const Sector = 512

// Partition types.
const (
	TypeBIOSBoot        = "21686148-6449-6E6F-744E-656564454649"
	TypeESP             = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	TypeLinuxFilesystem = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// Table is a partition table. Partitions are numbered as they stand.
type Table struct {
	DiskGUID   string
	Partitions []Partition
}

// Partition is the run of bytes from Start up to End, both multiples of Sector.
type Partition struct {
	Type, GUID string
	Name       string // at most 36 UTF-16 units
	Start, End int64
}

const (
	entrySize  = 128
	entryCount = 128
	arraySize  = entrySize * entryCount

	// Overhead is what the table takes at each end of the disk: one header and the array of
	// entries, and at the start the protective MBR before them.
	Overhead = Sector + arraySize
)

// Write writes both copies of the table and the protective MBR of a disk of size bytes.
func (t Table) Write(w io.WriterAt, size int64) error {
	array, err := t.array(size)
	if err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	guid, err := parseGUID(t.DiskGUID)
	if err != nil {
		return fmt.Errorf("partition table: disk: %w", err)
	}
	last := uint64(size/Sector) - 1
	arrayLBA := last - arraySize/Sector
	for _, p := range []struct {
		data []byte
		lba  uint64
	}{
		{protectiveMBR(last), 0},
		{header(guid, 1, last, 2, last, array), 1},
		{array, 2},
		{array, arrayLBA},
		{header(guid, last, 1, arrayLBA, last, array), last},
	} {
		if _, err := w.WriteAt(p.data, int64(p.lba)*Sector); err != nil {
			return fmt.Errorf("partition table: %w", err)
		}
	}
	return nil
}

// array returns the partition entries. It fails if they overlap or leave the disk.
func (t Table) array(size int64) ([]byte, error) {
	if size%Sector != 0 || size < 2*Overhead+Sector || len(t.Partitions) > entryCount {
		return nil, fmt.Errorf("%d partitions on a disk of %d bytes", len(t.Partitions), size)
	}
	array := make([]byte, arraySize)
	end := int64(Sector + Overhead)
	for i, p := range t.Partitions {
		if p.Start%Sector != 0 || p.End%Sector != 0 || p.Start < end || p.End <= p.Start || p.End > size-Overhead {
			return nil, fmt.Errorf("partition %d (%s): bytes %d to %d: want whole sectors from %d to at most %d", i+1, p.Name, p.Start, p.End, end, size-Overhead)
		}
		if err := p.put(array[i*entrySize:][:entrySize]); err != nil {
			return nil, fmt.Errorf("partition %d (%s): %w", i+1, p.Name, err)
		}
		end = p.End
	}
	return array, nil
}

func (p Partition) put(e []byte) error {
	typ, err := parseGUID(p.Type)
	if err != nil {
		return fmt.Errorf("type: %w", err)
	}
	guid, err := parseGUID(p.GUID)
	if err != nil {
		return err
	}
	name := utf16.Encode([]rune(p.Name))
	if len(name) > 36 {
		return fmt.Errorf("name is longer than 36 characters")
	}
	copy(e, typ[:])
	copy(e[16:], guid[:])
	binary.LittleEndian.PutUint64(e[32:], uint64(p.Start/Sector))
	binary.LittleEndian.PutUint64(e[40:], uint64(p.End/Sector)-1)
	for i, u := range name {
		binary.LittleEndian.PutUint16(e[56+2*i:], u)
	}
	return nil
}

// header returns the sector of a header at LBA self whose copy is at other.
func header(disk [16]byte, self, other, arrayLBA, last uint64, array []byte) []byte {
	h := make([]byte, Sector)
	le := binary.LittleEndian
	copy(h, "EFI PART")
	le.PutUint32(h[8:], 0x00010000) // revision
	le.PutUint32(h[12:], 92)        // header size
	le.PutUint64(h[24:], self)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], (Sector+Overhead)/Sector) // first usable
	le.PutUint64(h[48:], last-arraySize/Sector-1)  // last usable
	copy(h[56:], disk[:])
	le.PutUint64(h[72:], arrayLBA)
	le.PutUint32(h[80:], entryCount)
	le.PutUint32(h[84:], entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	return h
}

// protectiveMBR returns a sector with one partition of type 0xEE over the whole disk.
func protectiveMBR(last uint64) []byte {
	m := make([]byte, Sector)
	e := m[446:]
	copy(e[1:], []byte{0x00, 0x02, 0x00}) // CHS of LBA 1
	e[4] = 0xee
	copy(e[5:], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xffffffff)))
	m[510], m[511] = 0x55, 0xaa
	return m
}

// parseGUID returns the bytes of a GUID as they stand on disk: its first three groups
// little-endian.
func parseGUID(s string) (g [16]byte, err error) {
	groups := strings.Split(s, "-")
	b, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil || len(b) != 16 || len(groups) != 5 || len(groups[0]) != 8 || len(groups[1]) != 4 || len(groups[2]) != 4 || len(groups[3]) != 4 {
		return g, fmt.Errorf("%q is not a GUID", s)
	}
	for i, j := range [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15} {
		g[i] = b[j]
	}
	return g, nil
}
