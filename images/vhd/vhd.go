// Package vhd turns a raw disk image into a fixed VHD, as Azure takes it: the disk, and behind it a footer that says how large it is (Microsoft's
// "Virtual Hard Disk Image Format Specification", 1.0). The image builder writes with it. The file is as sparse as the disk, and the same
// Spec gives the same bytes.
package vhd

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/sparse"
)

// Spec is what the file says beside the disk.
type Spec struct {
	ID   string    // a GUID
	Time time.Time // after 1999
}

const (
	// unit is what Azure wants a disk's size to be a multiple of.
	unit       = 1 << 20
	sector     = 512
	footerSize = 512
)

// epoch is where the format's time begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Convert writes the VHD of raw into dst, which is empty. The disk is filled up with zeros to whole MiB.
func (s Spec) Convert(dst, raw *os.File) error {
	if err := s.convert(dst, raw); err != nil {
		return fmt.Errorf("vhd: %w", err)
	}
	return nil
}

func (s Spec) convert(dst, raw *os.File) error {
	st, err := raw.Stat()
	if err != nil {
		return err
	}
	size := (st.Size() + unit - 1) / unit * unit
	footer, err := s.footer(size)
	if err != nil {
		return err
	}
	extents, err := sparse.Extents(raw, st.Size())
	if err != nil {
		return err
	}
	for _, e := range extents {
		if err := content.CopyAt(dst, e.Start, io.NewSectionReader(raw, e.Start, e.Size)); err != nil {
			return err
		}
	}
	_, err = dst.WriteAt(footer, size)
	return err
}

func (s Spec) footer(size int64) ([]byte, error) {
	id, err := hex.DecodeString(strings.ReplaceAll(s.ID, "-", ""))
	if err != nil || len(id) != 16 {
		return nil, fmt.Errorf("%q is not a GUID", s.ID)
	}
	seconds := s.Time.Unix() - epoch.Unix()
	if seconds < 0 || seconds > 1<<32-1 {
		return nil, fmt.Errorf("%s is not a time that a VHD can have", s.Time.UTC().Format(time.RFC3339))
	}
	b := make([]byte, footerSize)
	be := binary.BigEndian
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)        // features: none, of which this bit is always set
	be.PutUint32(b[12:], 1<<16)   // version 1.0
	be.PutUint64(b[16:], 1<<64-1) // no header follows: it is fixed
	be.PutUint32(b[24:], uint32(seconds))
	copy(b[28:], "win ")         // QEMU believes the size below, and not the geometry, of programs that it knows
	be.PutUint32(b[32:], 10<<16) // of version 10.0
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], uint64(size)) // when it was made
	be.PutUint64(b[48:], uint64(size)) // now
	cylinders, heads, sectors := geometry(size / sector)
	be.PutUint16(b[56:], uint16(cylinders))
	b[58], b[59] = byte(heads), byte(sectors)
	be.PutUint32(b[60:], 2) // fixed
	copy(b[68:], id)
	be.PutUint32(b[64:], checksum(b))
	return b, nil
}

// geometry is what the specification's appendix, "CHS Calculation", makes of a number of sectors. It is at most 127 GiB, and at most what there is.
func geometry(total int64) (cylinders, heads, sectors int64) {
	total = min(total, 65535*16*255)
	if total >= 65535*16*63 {
		return total / 255 / 16, 16, 255
	}
	sectors = 17
	perHead := total / sectors
	heads = max((perHead+1023)/1024, 4)
	if perHead >= heads*1024 || heads > 16 {
		sectors, heads = 31, 16
		perHead = total / sectors
	}
	if perHead >= heads*1024 {
		sectors, heads = 63, 16
		perHead = total / sectors
	}
	return perHead / heads, heads, sectors
}

// checksum is the complement of the sum of all bytes, those of the checksum being zero.
func checksum(b []byte) uint32 {
	sum := uint32(0)
	for _, v := range b {
		sum += uint32(v)
	}
	return ^sum
}
