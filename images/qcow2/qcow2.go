// Package qcow2 turns a raw disk image into QEMU's format (docs/interop/qcow2.txt in QEMU's
// source, version 3) with compressed clusters, and reads the disk in such a file. The image
// builder writes with it last, package inspect reads. Holes and zeros are left out, clusters are
// compressed on all processors, and the same raw image gives the same bytes on any number of them.
package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

const (
	clusterBits = 16
	cluster     = 1 << clusterBits
	l2Entries   = cluster / 8
	refEntries  = cluster / 2 // refcounts of 16 bits in one block

	// Flags of an L2 entry, and where a compressed one keeps its count of sectors: 62 - (clusterBits - 8).
	flagCopied      = 1 << 63
	flagCompressed  = 1 << 62
	compressedShift = 54
)

// Convert writes the qcow2 image of raw into dst, which is empty.
func Convert(dst, raw *os.File) error {
	st, err := raw.Stat()
	if err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	// Layout: header, data, L2 tables, L1 table, refcount blocks, refcount table. Data comes first as
	// its size is known last; the header is written at the end.
	im := &image{w: dst, size: st.Size(), end: cluster, l2: map[int64][]uint64{}, refs: []uint16{1}}
	if err := compressAll(raw, st.Size(), im.add); err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	if err := im.finish(); err != nil {
		return fmt.Errorf("qcow2: %w", err)
	}
	return nil
}

// image is a qcow2 file being written.
type image struct {
	w    io.WriterAt
	size int64              // of the disk
	end  int64              // of the file so far
	l2   map[int64][]uint64 // by index in the L1 table
	refs []uint16           // of each cluster of the file
}

// add puts a cluster's data at the end of the file: compressed if that made it smaller.
func (im *image) add(c packed) error {
	l2 := im.l2[c.index/l2Entries]
	if l2 == nil {
		l2 = make([]uint64, l2Entries)
		im.l2[c.index/l2Entries] = l2
	}
	n := int64(len(c.data))
	if c.compressed {
		sectors := (im.end+n-1)/512 - im.end/512 // beyond the first
		l2[c.index%l2Entries] = flagCompressed | uint64(sectors)<<compressedShift | uint64(im.end)
	} else {
		im.align()
		l2[c.index%l2Entries] = flagCopied | uint64(im.end)
	}
	return im.append(c.data)
}

// align moves the end to a whole cluster.
func (im *image) align() { im.end = (im.end + cluster - 1) / cluster * cluster }

// append writes b at the end and counts a reference to each cluster that it touches.
func (im *image) append(b []byte) error {
	if _, err := im.w.WriteAt(b, im.end); err != nil {
		return err
	}
	first, last := im.end/cluster, (im.end+int64(len(b))-1)/cluster
	for int64(len(im.refs)) <= last {
		im.refs = append(im.refs, 0)
	}
	for i := first; i <= last; i++ {
		im.refs[i]++
	}
	im.end += int64(len(b))
	return nil
}

// table appends a table of 64-bit entries in whole clusters and returns where it lies.
func (im *image) table(entries []uint64) (at int64, err error) {
	im.align()
	at = im.end
	return at, im.append(pad(bigEndian(entries)))
}

// finish writes the tables and the header.
func (im *image) finish() error {
	l1 := make([]uint64, (im.size+cluster*l2Entries-1)/(cluster*l2Entries))
	for i := range l1 {
		if l2 := im.l2[int64(i)]; l2 != nil {
			at, err := im.table(l2)
			if err != nil {
				return err
			}
			l1[i] = flagCopied | uint64(at)
		}
	}
	l1At, err := im.table(l1)
	if err != nil {
		return err
	}
	refAt, refClusters, err := im.refcounts()
	if err != nil {
		return err
	}
	_, err = im.w.WriteAt(pad(im.header(len(l1), l1At, refClusters, refAt)), 0)
	return err
}

// refcounts appends the refcount blocks and their table. Both count themselves, so that their
// number is found first.
func (im *image) refcounts() (at int64, clusters int, err error) {
	im.align()
	used := int(im.end / cluster)
	blocks, tables := 0, 0
	for {
		total := used + blocks + tables
		b := (total + refEntries - 1) / refEntries
		t := (b + l2Entries - 1) / l2Entries
		if b == blocks && t == tables {
			break
		}
		blocks, tables = b, t
	}
	for int(len(im.refs)) < used {
		im.refs = append(im.refs, 0)
	}
	for range blocks + tables {
		im.refs = append(im.refs, 1)
	}
	all := make([]byte, blocks*cluster)
	for i, n := range im.refs {
		binary.BigEndian.PutUint16(all[2*i:], n)
	}
	table := make([]uint64, blocks)
	for i := range table {
		table[i] = uint64(im.end) + uint64(i)*cluster
	}
	if _, err := im.w.WriteAt(all, im.end); err != nil {
		return 0, 0, err
	}
	at = im.end + int64(len(all))
	_, err = im.w.WriteAt(pad(bigEndian(table)), at)
	return at, tables, err
}

func (im *image) header(l1Size int, l1At int64, refClusters int, refAt int64) []byte {
	b := make([]byte, 112)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3) // version
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(im.size))
	be.PutUint32(b[36:], uint32(l1Size))
	be.PutUint64(b[40:], uint64(l1At))
	be.PutUint64(b[48:], uint64(refAt))
	be.PutUint32(b[56:], uint32(refClusters))
	be.PutUint32(b[96:], 4)    // a refcount has 1<<4 bits
	be.PutUint32(b[100:], 104) // header length; eight zeros behind it end the extensions
	return b
}

func bigEndian(entries []uint64) []byte {
	b := make([]byte, 8*len(entries))
	for i, e := range entries {
		binary.BigEndian.PutUint64(b[8*i:], e)
	}
	return b
}

// pad extends b with zeros to whole clusters, at least one.
func pad(b []byte) []byte {
	n := max(1, (len(b)+cluster-1)/cluster) * cluster
	return append(b, make([]byte, n-len(b))...)
}
