// Package fat writes FAT32 file systems (Microsoft, "FAT32 File System Specification", 1.03) that
// are filled once: EFI system partitions. The disk and ISO writers call it.
//
// Every file lies in one piece, and nothing is written where a file system has only zeros, so that
// a sparse image stays sparse and 50 MB take the time of copying them. The same files and
// Options give the same bytes. Nothing is left for fsck.vfat to say.
//
// It stands in for go-diskfs, which partition tables are written with: that took 0.36 s for a file
// of 44 MB where this takes 0.03 s, takes its date from the environment, and fsck.vfat finds three
// faults in its result (first-level "..", a cluster that an empty file owns, no count of free clusters).
package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/cosi-os/cosi/images/content"
)

// File is a file of the file system. Directories are made as paths need them.
type File struct {
	Path    string // relative, with slashes: "EFI/BOOT/BOOTX64.EFI"
	Content content.Content
}

// Options are what a file system has beside its files.
type Options struct {
	Label    string // at most 11 of A-Z, 0-9, space, - and _
	VolumeID uint32
	Time     time.Time // of every file, in UTC; FAT knows the years 1980 to 2107
	Start    int64     // where the file system lies on its disk, in bytes
}

const (
	sector     = 512
	reserved   = 32 // sectors before the first FAT
	copies     = 2  // of the FAT
	entrySize  = 32
	rootFirst  = 2 // cluster numbers begin at 2
	endOfChain = 0x0fffffff

	// A file system with fewer clusters is FAT16, whatever it says of itself.
	minClusters = 65525
	maxClusters = 0x0ffffff4
)

// MinSize is a size that is always enough to be FAT32.
const MinSize = 34 << 20

// geometry is how a file system of a size is cut up.
type geometry struct {
	sectors    int64
	perCluster int64 // sectors
	fat        int64 // sectors of one FAT
	clusters   int64
}

// layout takes the largest clusters with which a file system of size bytes is still FAT32.
func layout(size int64) (geometry, error) {
	g := geometry{sectors: size / sector}
	if size%sector != 0 || g.sectors > math.MaxUint32 {
		return g, fmt.Errorf("size %d is not between %d bytes and 2 TiB in sectors of %d bytes", size, MinSize, sector)
	}
	for g.perCluster = 64; g.perCluster >= 1; g.perCluster /= 2 {
		// The FAT takes 4 bytes a cluster and is taken from the clusters itself.
		data := g.sectors - reserved
		g.fat = (4*(data/g.perCluster+2) + sector - 1) / sector
		g.clusters = (data - copies*g.fat) / g.perCluster
		if g.clusters >= minClusters && g.clusters <= maxClusters {
			return g, nil
		}
	}
	return g, fmt.Errorf("size %d is too small for FAT32 (at least %d)", size, MinSize)
}

func (g geometry) clusterSize() int64 { return g.perCluster * sector }

// offset returns where a cluster lies in the file system.
func (g geometry) offset(cluster uint32) int64 {
	return (reserved + copies*g.fat + int64(cluster-rootFirst)*g.perCluster) * sector
}

// Write makes a file system of size bytes that holds files. w must read as zeros there. It fails if
// the files do not fit, on two names that are one without regard to case, and on a name that
// FAT has no characters for.
func Write(w io.WriterAt, size int64, files []File, o Options) error {
	if err := write(w, size, files, o); err != nil {
		return fmt.Errorf("FAT: %w", err)
	}
	return nil
}

func write(w io.WriterAt, size int64, files []File, o Options) error {
	g, err := layout(size)
	if err != nil {
		return err
	}
	label, err := o.label()
	if err != nil {
		return err
	}
	root, err := tree(files)
	if err != nil {
		return err
	}
	root.label = o.Label
	table := []uint32{0x0ffffff8, endOfChain} // media descriptor; "unmounted cleanly, no errors"
	table = root.allocate(table, g)
	if used := int64(len(table)) - rootFirst; used > g.clusters {
		return fmt.Errorf("files need %d KiB, the file system has %d", used*g.clusterSize()>>10, g.clusters*g.clusterSize()>>10)
	}
	boot := bootSector(g, label, o)
	info := infoSector(g, int64(len(table))-rootFirst)
	fat := make([]byte, 4*len(table))
	for i, v := range table {
		binary.LittleEndian.PutUint32(fat[4*i:], v)
	}
	for _, p := range []struct {
		data []byte
		at   int64 // sector
	}{
		{boot, 0}, {info, 1}, {boot, 6}, {info, 7}, // the second pair is the copy
		{fat, reserved}, {fat, reserved + g.fat},
	} {
		if _, err := w.WriteAt(p.data, p.at*sector); err != nil {
			return err
		}
	}
	return root.write(w, g, dosTime(o.Time))
}

// label returns the label as the boot sector holds it.
func (o Options) label() ([11]byte, error) {
	b := [11]byte([]byte("NO NAME    "))
	if o.Label == "" {
		return b, nil
	}
	n := copy(b[:], o.Label+"           ")
	for _, c := range []byte(o.Label) {
		if !shortChar(c) && c != ' ' {
			n = 0
		}
	}
	if n == 0 || len(o.Label) > len(b) || o.Label[0] == ' ' {
		return b, fmt.Errorf("label %q: want at most 11 of A-Z, 0-9, space, - and _", o.Label)
	}
	return b, nil
}

func bootSector(g geometry, label [11]byte, o Options) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, "\xeb\x58\x90COSI    ") // jump over the fields below
	le.PutUint16(b[11:], sector)
	b[13] = byte(g.perCluster)
	le.PutUint16(b[14:], reserved)
	b[16] = copies
	b[21] = 0xf8              // media: a fixed disk
	le.PutUint16(b[24:], 63)  // sectors a track and
	le.PutUint16(b[26:], 255) // heads: what everybody writes for LBA disks
	le.PutUint32(b[28:], uint32(o.Start/sector))
	le.PutUint32(b[32:], uint32(g.sectors))
	le.PutUint32(b[36:], uint32(g.fat))
	le.PutUint32(b[44:], rootFirst)
	le.PutUint16(b[48:], 1) // information sector
	le.PutUint16(b[50:], 6) // copy of this sector
	b[64] = 0x80            // BIOS drive number
	b[66] = 0x29            // the three fields below are valid
	le.PutUint32(b[67:], o.VolumeID)
	copy(b[71:], label[:])
	copy(b[82:], "FAT32   ")
	copy(b[90:], "\xf4\xeb\xfd") // hlt; jmp to it: there is nothing to boot here by BIOS
	b[510], b[511] = 0x55, 0xaa
	return b
}

func infoSector(g geometry, used int64) []byte {
	b := make([]byte, sector)
	le := binary.LittleEndian
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	le.PutUint32(b[488:], uint32(g.clusters-used))
	le.PutUint32(b[492:], uint32(rootFirst+used)) // where to look for a free one
	b[510], b[511] = 0x55, 0xaa
	return b
}
