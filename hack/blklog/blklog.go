// Package blklog reads what QEMU's blklogwrites driver has recorded of a disk, and makes the disk again as a loss of power could have left
// it at any moment. The drill in hack/soak/kills uses it.
//
// A log is what Linux's dm-log-writes writes (Documentation/admin-guide/device-mapper/log-writes.rst), all numbers little-endian:
//
//	sector 0: magic 8 | version 8 | number of entries 8 | size of a sector 4
//	entry:    sector 8 | number of sectors 8 | flags 8 | length of a mark 8, in a sector of its own; then what was written
//
// QEMU appends an entry when the file below has taken it, and before the guest is told. It writes the number of entries with each flush.
package blklog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	magic      = 0x6a736677736872
	version    = 1
	headerSize = 28
	entrySize  = 32
)

// Flags of an entry.
type Flags uint64

const (
	Flush   Flags = 1 // what came before is durable; it writes nothing
	FUA     Flags = 2 // what is written is durable
	Discard Flags = 4 // zeros, which do not stand in the log
	Mark    Flags = 8 // a text that somebody put there
)

// Entry is something that was done with the disk.
type Entry struct {
	Flags          Flags
	Offset, Length int64 // on the disk
	at             int64 // of what is written, in the log; 0 for zeros
}

// Log is a recorded disk.
type Log struct {
	Entries []Entry
	// Sectored is where those parts of the disk end that are written by sectors of 512 bytes, and by nothing that relies on more than that one is
	// written whole.
	Sectored int64
	data     io.ReaderAt
}

// ErrNoLog is wrapped by the error for what is not a log.
var ErrNoLog = errors.New("not a log of a disk's writes")

// Count returns how many entries a log held at the last flush, 0 if there was none. The log may be written to meanwhile: what was told to the
// guest, or by it, before Count is called and needs a flush is in the first Count entries.
func Count(log io.ReaderAt) (uint64, error) {
	count, _, err := readHeader(log)
	return count, err
}

func readHeader(log io.ReaderAt) (count, sector uint64, err error) {
	b := make([]byte, headerSize)
	if n, err := log.ReadAt(b, 0); n < len(b) {
		if errors.Is(err, io.EOF) && n == 0 {
			return 0, 0, nil
		}
		return 0, 0, err
	}
	count, sector = binary.LittleEndian.Uint64(b[16:]), uint64(binary.LittleEndian.Uint32(b[24:]))
	switch {
	case binary.LittleEndian.Uint64(b) == 0 && count == 0 && sector == 0: // entries, and no flush yet
		return 0, 0, nil
	case binary.LittleEndian.Uint64(b) != magic || binary.LittleEndian.Uint64(b[8:]) != version:
		return 0, 0, fmt.Errorf("%w: it begins with %x", ErrNoLog, b)
	case sector < entrySize || sector&(sector-1) != 0:
		return 0, 0, fmt.Errorf("%w: its sectors have %d bytes", ErrNoLog, sector)
	}
	return count, sector, nil
}

// Read reads a log of size bytes, to its last flush. What was written is read from data when it is needed. It fails with ErrNoLog for what is
// none.
func Read(data io.ReaderAt, size int64) (*Log, error) {
	count, sector, err := readHeader(data)
	if err != nil {
		return nil, err
	}
	log := &Log{data: data}
	at, b := int64(sector), make([]byte, entrySize)
	for i := range count {
		if n, err := data.ReadAt(b, at); n < len(b) {
			return nil, fmt.Errorf("entry %d of %d: %w", i, count, err)
		}
		e, err := decode(b, sector)
		if err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", i, count, err)
		}
		at += int64(sector)
		if e.Flags&Discard == 0 && e.Length > 0 {
			e.at, at = at, at+e.Length
		}
		if at > size {
			return nil, fmt.Errorf("entry %d of %d: %w", i, count, io.ErrUnexpectedEOF)
		}
		log.Entries = append(log.Entries, e)
	}
	return log, nil
}

// most is the size of the largest disk.
const most = 1 << 62

func decode(b []byte, sector uint64) (Entry, error) {
	first, sectors := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	e := Entry{Flags: Flags(binary.LittleEndian.Uint64(b[16:]))}
	if e.Flags&^(Flush|FUA|Discard|Mark) != 0 {
		return e, fmt.Errorf("%w: its flags are %#x", ErrNoLog, uint64(e.Flags))
	}
	if first > most/sector || sectors > most/sector-first {
		return e, fmt.Errorf("%w: it is for sectors %d+%d", ErrNoLog, first, sectors)
	}
	if e.Flags&Flush != 0 && sectors > 0 {
		return e, fmt.Errorf("%w: it flushes and writes", ErrNoLog) // dm-log-writes has those, QEMU does not
	}
	if e.Flags&Mark != 0 {
		return e, nil
	}
	e.Offset, e.Length = int64(first*sector), int64(sectors*sector)
	return e, nil
}
