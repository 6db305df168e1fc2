// Package vmdk turns a raw disk image into a stream-optimized VMDK, as vSphere and OVAs take it ("Virtual Disk Format 5.0", VMware). The image
// builder writes with it. The disk is cut into grains of 64 KiB; those of zeros are left out, the others are compressed on all processors, and
// the same Spec and disk give the same bytes on any number of them. It writes from the first byte to the last.
//
//	sector 0   header: version 3, where the tables are is said in the footer
//	       1   descriptor: text
//	     128   grains, each with its place on the disk; behind those of 32 MiB the table of where they are
//	       …   directory: where the tables are
//	           footer: the header again, with where the directory is
//	           end of stream
package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zlib"

	"github.com/cosi-os/cosi/images/internal/inorder"
	"github.com/cosi-os/cosi/images/internal/sparse"
)

// Spec is what the file says beside the disk.
type Spec struct {
	// Name is the file's, which its descriptor repeats.
	Name string
	// ID is a GUID. Disks of the same ID are taken for copies of one.
	ID string
}

const (
	sector       = 512
	grain        = 64 << 10
	grainSectors = grain / sector
	tableEntries = 512 // of four bytes
	dataStart    = 128 // sectors
	version      = 3
	atEnd        = 1<<64 - 1 // of the directory's place in the header: the footer says it

	// Flags of the header: line ends can be checked; grains are compressed; markers tell what comes.
	flags = 1<<0 | 1<<16 | 1<<17

	// Types of markers.
	markEnd       = 0
	markTable     = 1
	markDirectory = 2
	markFooter    = 3
)

// Convert writes the VMDK of raw to w. The disk is filled up with zeros to whole grains.
func (s Spec) Convert(w io.Writer, raw *os.File) error {
	if err := s.convert(w, raw); err != nil {
		return fmt.Errorf("vmdk: %w", err)
	}
	return nil
}

func (s Spec) convert(to io.Writer, raw *os.File) error {
	st, err := raw.Stat()
	if err != nil {
		return err
	}
	grains := (st.Size() + grain - 1) / grain
	w := &writer{w: to, capacity: grains * grainSectors, table: -1, directory: make([]uint32, (grains+tableEntries-1)/tableEntries)}
	descriptor := s.descriptor(w.capacity)
	if len(descriptor) > (dataStart-1)*sector {
		return fmt.Errorf("the name of the file is too long")
	}
	head := make([]byte, dataStart*sector)
	copy(head, w.header(atEnd))
	copy(head[sector:], descriptor)
	if err := w.write(head); err != nil {
		return err
	}
	if err := compress(raw, st.Size(), w.add); err != nil {
		return err
	}
	return w.finish()
}

// writer writes one file.
type writer struct {
	w        io.Writer
	at       int64 // in bytes
	capacity int64 // of the disk, in sectors

	entries   [tableEntries]uint32 // of the table that is being filled: where each grain begins, in sectors
	table     int64                // which one that is; -1: none yet
	directory []uint32             // where each table begins; 0: it has no grains
}

// write writes b and fills the sector up.
func (w *writer) write(b []byte) error {
	fill := -len(b) & (sector - 1)
	if _, err := w.w.Write(append(b, make([]byte, fill)...)); err != nil {
		return err
	}
	w.at += int64(len(b) + fill)
	return nil
}

// place is where the next sector is. The format has 32 bits for it.
func (w *writer) place() (uint32, error) {
	if w.at/sector > 1<<32-1 {
		return 0, fmt.Errorf("more than 2 TiB of data")
	}
	return uint32(w.at / sector), nil
}

// add writes a grain, behind the table of those before it if that is full.
func (w *writer) add(c packed) error {
	if table := c.index / tableEntries; table != w.table {
		if err := w.closeTable(); err != nil {
			return err
		}
		w.table = table
	}
	at, err := w.place()
	if err != nil {
		return err
	}
	w.entries[c.index%tableEntries] = at
	b := binary.LittleEndian.AppendUint64(nil, uint64(c.index*grainSectors))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.data)))
	return w.write(append(b, c.data...))
}

// marker announces a number of sectors that hold no grain.
func (w *writer) marker(sectors int64, kind uint32) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(sectors))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return w.write(binary.LittleEndian.AppendUint32(b, kind))
}

func (w *writer) closeTable() error {
	if w.table < 0 {
		return nil
	}
	at, err := w.numbers(markTable, w.entries[:])
	w.directory[w.table] = at
	clear(w.entries[:])
	return err
}

// numbers writes a table behind its marker and returns where it is.
func (w *writer) numbers(kind uint32, all []uint32) (uint32, error) {
	var b []byte
	for _, n := range all {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if err := w.marker(int64(len(b)+sector-1)/sector, kind); err != nil {
		return 0, err
	}
	at, err := w.place()
	if err != nil {
		return 0, err
	}
	return at, w.write(b)
}

// finish writes what comes behind the last grain.
func (w *writer) finish() error {
	if err := w.closeTable(); err != nil {
		return err
	}
	at, err := w.numbers(markDirectory, w.directory)
	if err != nil {
		return err
	}
	if err := w.marker(1, markFooter); err != nil {
		return err
	}
	if err := w.write(w.header(uint64(at))); err != nil {
		return err
	}
	return w.marker(0, markEnd)
}

func (w *writer) header(directory uint64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, "KDMV")
	le.PutUint32(b[4:], version)
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(w.capacity))
	le.PutUint64(b[20:], grainSectors)
	le.PutUint64(b[28:], 1)           // the descriptor's place
	le.PutUint64(b[36:], dataStart-1) // and size
	le.PutUint32(b[44:], tableEntries)
	le.PutUint64(b[56:], directory) // the second directory, before it, is none
	le.PutUint64(b[64:], dataStart)
	copy(b[73:], "\n \r\n") // what a transfer as text would have changed
	le.PutUint16(b[77:], 1) // deflate
	return b
}

func (s Spec) descriptor(capacity int64) string {
	id := strings.ToLower(strings.ReplaceAll(s.ID, "-", ""))
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%.8s
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE %q

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%s"
ddb.virtualHWVersion = "13"
`, id, capacity, s.Name, (capacity+255*63-1)/(255*63), id)
}

// packed is a grain ready to be written.
type packed struct {
	index int64
	data  []byte // in the format of RFC 1950; empty for zeros
}

// compress calls add with each grain of raw that is not zeros, in order.
func compress(raw *os.File, size int64, add func(packed) error) error {
	grains := func(yield func(int64) bool) error { return sparse.Blocks(raw, size, grain, yield) }
	worker := func() (func(int64) (packed, error), error) {
		plain, out := make([]byte, grain), &bytes.Buffer{}
		w := zlib.NewWriter(out)
		return func(index int64) (packed, error) {
			n, err := raw.ReadAt(plain, index*grain)
			if err != nil && err != io.EOF {
				return packed{}, err
			}
			clear(plain[n:])
			if sparse.Zero(plain) {
				return packed{index: index}, nil
			}
			out.Reset()
			w.Reset(out)
			if _, err := w.Write(plain); err != nil {
				return packed{}, err
			}
			err = w.Close()
			return packed{index, bytes.Clone(out.Bytes())}, err
		}, nil
	}
	return inorder.Each(grains, worker, func(c packed) error {
		if len(c.data) == 0 {
			return nil
		}
		return add(c)
	})
}
