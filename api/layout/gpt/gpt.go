// Package gpt reads and changes GUID partition tables (UEFI Specification 2.10, chapter 5). A node adds its state partition with it, and
// the tool that runs images in QEMU carries that partition over to another image; images are made by the image builder's own writer.
//
// It needs the standard library only, because PID 1 imports it. What it does not know of a table, it keeps. A change is written so that at
// any moment one of the two copies is whole: see Table.Write.
package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

// Sector is the logical block size that is understood.
const Sector = 512

// CodeSize is how much of the MBR is code.
const CodeSize = 440

const (
	signature  = "EFI PART"
	revision   = 0x00010000
	headerSize = 92
	entrySize  = 128
	maxEntries = 128
	// reserved is what each copy takes beside the protective MBR: a header and 128 entries.
	reserved = Sector + maxEntries*entrySize
	// nameLength is the length of a name in UTF-16 units.
	nameLength = 36
)

// GUID is an identifier as it stands on the disk: the first three fields are little-endian.
type GUID [16]byte

// ParseGUID reads the usual form, 8-4-4-4-12 hexadecimal digits.
func ParseGUID(s string) (GUID, error) {
	var b [16]byte
	var rest string
	n, _ := fmt.Sscanf(s, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x%s",
		&b[3], &b[2], &b[1], &b[0], &b[5], &b[4], &b[7], &b[6], &b[8], &b[9], &b[10], &b[11], &b[12], &b[13], &b[14], &b[15], &rest)
	if n != 16 || len(s) != 36 {
		return GUID{}, fmt.Errorf("%q is not a GUID", s)
	}
	return b, nil
}

func (g GUID) String() string {
	return fmt.Sprintf("%02X%02X%02X%02X-%02X%02X-%02X%02X-%02X%02X-%02X%02X%02X%02X%02X%02X",
		g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15])
}

// State is the type of a node's state partition. It is this project's own.
var State = GUID{0x0c, 0x31, 0x5b, 0xc0, 0x71, 0x57, 0xa5, 0x4a, 0x9b, 0x1e, 0x63, 0x6f, 0x73, 0x69, 0x05, 0x01}

// Partition is an entry of a table.
type Partition struct {
	Type, GUID GUID
	Name       string
	Attributes uint64
	// Start is the first byte, End the first one behind it.
	Start, End int64
}

// Table is a partition table. Partition n of the disk is Partitions[n-1]; one with the zero Type is none.
type Table struct {
	DiskGUID   GUID
	Partitions []Partition
	// Code, if it is not empty, is written into the MBR together with its table: what a BIOS starts, CodeSize bytes at most.
	Code []byte
	// Backup says that it was read from the copy at the end of the disk, because the first one is damaged.
	Backup bool
	// Moved says that the copy is not at the end of the disk, as after the disk has grown.
	Moved bool
}

// ErrNone says that there is no whole table.
var ErrNone = errors.New("no GUID partition table")

// Read reads the table of a disk of size bytes: the first copy, or if that is damaged, the one at the end.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	if size%Sector != 0 || size < 2*reserved+2*Sector {
		return nil, fmt.Errorf("%w: a disk of %d bytes", ErrNone, size)
	}
	t, err := readCopy(r, 1, size)
	if err == nil {
		return t, nil
	}
	t, backupErr := readCopy(r, size/Sector-1, size)
	if backupErr != nil {
		return nil, fmt.Errorf("%w: %w; the copy: %w", ErrNone, err, backupErr)
	}
	t.Backup = true
	return t, nil
}

// readCopy reads the copy whose header is in the sector lba.
func readCopy(r io.ReaderAt, lba, size int64) (*Table, error) {
	header := make([]byte, Sector)
	if _, err := r.ReadAt(header, lba*Sector); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	sum := le.Uint32(header[16:])
	length := le.Uint32(header[12:])
	if string(header[:8]) != signature || length < headerSize || length > Sector {
		return nil, errors.New("no header")
	}
	le.PutUint32(header[16:], 0)
	if crc32.ChecksumIEEE(header[:length]) != sum {
		return nil, errors.New("the checksum of the header does not match")
	}
	if int64(le.Uint64(header[24:])) != lba {
		return nil, errors.New("the header belongs elsewhere")
	}
	count, each := le.Uint32(header[80:]), le.Uint32(header[84:])
	at := int64(le.Uint64(header[72:]))
	if each != entrySize || count == 0 || count > maxEntries || at < 2 || at > size/Sector-1 {
		return nil, fmt.Errorf("%d entries of %d bytes in sector %d are not understood", count, each, at)
	}
	entries := make([]byte, count*each)
	if _, err := r.ReadAt(entries, at*Sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(header[88:]) {
		return nil, errors.New("the checksum of the entries does not match")
	}
	t := &Table{DiskGUID: GUID(header[56:72])}
	if lba == 1 {
		t.Moved = int64(le.Uint64(header[32:])) != size/Sector-1
	}
	for i := range int(count) {
		t.Partitions = append(t.Partitions, decodeEntry(entries[i*entrySize:]))
	}
	for last := len(t.Partitions); last > 0 && t.Partitions[last-1].Type == (GUID{}); last-- {
		t.Partitions = t.Partitions[:last-1]
	}
	return t, t.check(size)
}

func decodeEntry(b []byte) Partition {
	le := binary.LittleEndian
	p := Partition{Type: GUID(b[:16]), GUID: GUID(b[16:32]), Attributes: le.Uint64(b[48:])}
	if p.Type == (GUID{}) {
		return Partition{}
	}
	first, last := le.Uint64(b[32:]), le.Uint64(b[40:])
	const most = 1 << 52 // sectors, so that bytes fit into an int64
	p.Start, p.End = int64(min(first, most))*Sector, (int64(min(last, most))+1)*Sector
	var name []uint16
	for i := range nameLength {
		unit := le.Uint16(b[56+2*i:])
		if unit == 0 {
			break
		}
		name = append(name, unit)
	}
	p.Name = string(utf16.Decode(name))
	return p
}

func (p Partition) encode(b []byte) {
	if p.Type == (GUID{}) {
		return
	}
	le := binary.LittleEndian
	copy(b, p.Type[:])
	copy(b[16:], p.GUID[:])
	le.PutUint64(b[32:], uint64(p.Start/Sector))
	le.PutUint64(b[40:], uint64(p.End/Sector)-1)
	le.PutUint64(b[48:], p.Attributes)
	for i, unit := range utf16.Encode([]rune(p.Name)) {
		le.PutUint16(b[56+2*i:], unit)
	}
}

// check fails when partitions overlap or leave the room between the copies.
func (t *Table) check(size int64) error {
	if len(t.Partitions) > maxEntries {
		return fmt.Errorf("%d partitions", len(t.Partitions))
	}
	for i, p := range t.Partitions {
		if p.Type == (GUID{}) {
			continue
		}
		if p.Start%Sector != 0 || p.End%Sector != 0 || p.Start < Sector+reserved || p.End <= p.Start || p.End > size-reserved {
			return fmt.Errorf("partition %d: bytes %d to %d of a disk of %d", i+1, p.Start, p.End, size)
		}
		if len(utf16.Encode([]rune(p.Name))) > nameLength {
			return fmt.Errorf("partition %d: the name %q is longer than %d characters", i+1, p.Name, nameLength)
		}
		for j, other := range t.Partitions[:i] {
			if other.Type != (GUID{}) && p.Start < other.End && other.Start < p.End {
				return fmt.Errorf("partitions %d and %d overlap", j+1, i+1)
			}
		}
	}
	return nil
}

// Usable returns where the last partition of a disk of size bytes may end.
func Usable(size int64) int64 { return size - reserved }

// Disk is what a table is written to.
type Disk interface {
	io.WriterAt
	// Sync returns when everything is on the medium.
	Sync() error
}

// Write writes t to a disk of size bytes: the copy at its end first, then, when that is on the medium, the first one, and at last the
// protective MBR. A power cut leaves the table as it was, or t: a reader takes the first copy while it is whole, and the other, which is
// then complete, when it is not. If t was read from the copy at the end, the first one is damaged and is written first.
func (t *Table) Write(d Disk, size int64) error {
	if err := t.WriteCopies(d, size); err != nil {
		return err
	}
	if err := errors.Join(writeMBR(d, t.Code, size), d.Sync()); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	return nil
}

// WriteCopies is Write without the protective MBR: a disk that no firmware reads a table on stays one.
func (t *Table) WriteCopies(d Disk, size int64) error {
	if err := t.check(size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	entries := make([]byte, maxEntries*entrySize)
	for i, p := range t.Partitions {
		p.encode(entries[i*entrySize:])
	}
	last := size/Sector - 1
	backup := func() error { return t.writeCopy(d, entries, last, last-maxEntries*entrySize/Sector, 1, size) }
	primary := func() error { return t.writeCopy(d, entries, 1, 2, last, size) }
	order := []func() error{backup, primary}
	if t.Backup {
		order = []func() error{primary, backup}
	}
	for _, write := range order {
		if err := errors.Join(write(), d.Sync()); err != nil {
			return fmt.Errorf("partition table: %w", err)
		}
	}
	t.Backup, t.Moved = false, false
	return nil
}

// writeCopy writes the entries before the header, which is of no use without them.
func (t *Table) writeCopy(d Disk, entries []byte, at, entriesAt, other, size int64) error {
	le := binary.LittleEndian
	h := make([]byte, Sector)
	copy(h, signature)
	le.PutUint32(h[8:], revision)
	le.PutUint32(h[12:], headerSize)
	le.PutUint64(h[24:], uint64(at))
	le.PutUint64(h[32:], uint64(other))
	le.PutUint64(h[40:], (Sector+reserved)/Sector)
	le.PutUint64(h[48:], uint64(Usable(size)/Sector)-1)
	copy(h[56:], t.DiskGUID[:])
	le.PutUint64(h[72:], uint64(entriesAt))
	le.PutUint32(h[80:], maxEntries)
	le.PutUint32(h[84:], entrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
	if _, err := d.WriteAt(entries, entriesAt*Sector); err != nil {
		return err
	}
	_, err := d.WriteAt(h, at*Sector)
	return err
}

// writeMBR writes the table of the protective MBR. The boot code before it stays, unless there is other: then both come by one write.
func writeMBR(d io.WriterAt, code []byte, size int64) error {
	const tableAt = 446
	var b bytes.Buffer
	at := int64(tableAt)
	if len(code) > 0 {
		at = 0
		b.Write(code[:min(len(code), CodeSize)])
		b.Write(make([]byte, tableAt-b.Len()))
	}
	b.Write([]byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff})
	binary.Write(&b, binary.LittleEndian, uint32(1))
	binary.Write(&b, binary.LittleEndian, uint32(min(size/Sector-1, 0xffffffff)))
	b.Write(make([]byte, 3*16))
	b.Write([]byte{0x55, 0xaa})
	_, err := d.WriteAt(b.Bytes(), at)
	return err
}
