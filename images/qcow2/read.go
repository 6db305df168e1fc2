package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Disk is the disk in a qcow2 image, to be read. Several goroutines may use it.
type Disk struct {
	file   io.ReaderAt
	length int64 // of the file
	size   int64 // of the disk
	l1     int64 // where the L1 table lies in the file

	mu    sync.Mutex // guards the fields below: the cluster that was read last
	index int64
	data  []byte
}

// Open returns the disk in a file of length bytes that Convert has written, or anybody who uses no more of the format than that. A file
// that does is refused with what it uses.
func Open(file io.ReaderAt, length int64) (*Disk, error) {
	d, err := open(file, length)
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	return d, nil
}

func open(file io.ReaderAt, length int64) (*Disk, error) {
	header := make([]byte, 104)
	if _, err := file.ReadAt(header, 0); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := unsupported(header); err != nil {
		return nil, err
	}
	be := binary.BigEndian
	d := &Disk{file: file, length: length, size: int64(be.Uint64(header[24:])), l1: int64(be.Uint64(header[40:])), index: -1}
	if d.size < 0 || d.size > maxSize {
		return nil, fmt.Errorf("a disk of %d bytes", uint64(d.size))
	}
	entries := (d.size + cluster*l2Entries - 1) / (cluster * l2Entries)
	if int64(be.Uint32(header[36:])) < entries {
		return nil, fmt.Errorf("its L1 table has %d entries, a disk of %d bytes needs %d", be.Uint32(header[36:]), d.size, entries)
	}
	if !d.holds(d.l1, 8*entries) {
		return nil, errors.New("its L1 table lies outside of the file, as in one that was cut off")
	}
	return d, nil
}

// maxSize keeps sums of offsets in 64 bits. No disk is larger.
const maxSize = 1 << 60

// Bits of the header's incompatible features, in words.
var features = []string{"it was not closed in order", "it is marked as corrupt", "its data is in another file", "it is not compressed with deflate", "it has extended L2 entries"}

// unsupported says what of the format a file uses that Open does not know.
func unsupported(header []byte) error {
	be := binary.BigEndian
	switch {
	case string(header[:4]) != "QFI\xfb":
		return errors.New("it does not begin like one")
	case be.Uint32(header[4:]) != 3:
		return fmt.Errorf("version %d; want 3", be.Uint32(header[4:]))
	case be.Uint64(header[8:]) != 0:
		return errors.New("it is based on another file")
	case be.Uint32(header[20:]) != clusterBits:
		return fmt.Errorf("clusters of 1<<%d bytes; want %d", be.Uint32(header[20:]), cluster)
	case be.Uint32(header[32:]) != 0:
		return errors.New("it is encrypted")
	case be.Uint32(header[60:]) != 0:
		return errors.New("it has snapshots")
	}
	bits := be.Uint64(header[72:])
	for n, feature := range features {
		if bits&(1<<n) != 0 {
			return errors.New(feature)
		}
	}
	if bits != 0 {
		return fmt.Errorf("it uses features that are not known here: %#x", bits)
	}
	return nil
}

// Size is the disk's, in bytes.
func (d *Disk) Size() int64 { return d.size }

// ReadAt reads from the disk.
func (d *Disk) ReadAt(p []byte, at int64) (n int, err error) {
	if at < 0 {
		return 0, errors.New("qcow2: read before the disk's beginning")
	}
	for n < len(p) && at < d.size {
		end := min(len(p), n+int(min(cluster-at%cluster, d.size-at)))
		if err := d.read(p[n:end], at); err != nil {
			return n, fmt.Errorf("qcow2: cluster %d: %w", at/cluster, err)
		}
		at += int64(end - n)
		n = end
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads from within one cluster.
func (d *Disk) read(p []byte, at int64) error {
	entry, err := d.entry(at / cluster)
	switch {
	case err != nil:
		return err
	case entry&flagCompressed != 0:
		return d.unpack(p, at, entry)
	case entry&flagZeros != 0 || entry&offsetMask == 0:
		clear(p)
		return nil
	}
	from := int64(entry&offsetMask) + at%cluster
	if !d.holds(from, int64(len(p))) {
		return errOutside
	}
	_, err = d.file.ReadAt(p, from)
	return err
}

var errOutside = errors.New("it lies outside of the file")

// Of an entry in the L1 table, and in an L2 table if it is not compressed.
const (
	offsetMask = 1<<56 - 1<<9
	flagZeros  = 1
)

// entry looks a cluster up. 0 is one that there is nothing of.
func (d *Disk) entry(index int64) (uint64, error) {
	table, err := d.number(d.l1 + 8*(index/l2Entries))
	if table &= offsetMask; err != nil || table == 0 {
		return 0, err
	}
	return d.number(int64(table) + 8*(index%l2Entries))
}

func (d *Disk) number(at int64) (uint64, error) {
	var b [8]byte
	if !d.holds(at, 8) {
		return 0, errOutside
	}
	_, err := d.file.ReadAt(b[:], at)
	return binary.BigEndian.Uint64(b[:]), err
}

// unpack reads from a compressed cluster. It keeps the one that it has unpacked, since most who read go on behind that.
func (d *Disk) unpack(p []byte, at int64, entry uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.index != at/cluster {
		from := int64(entry & (1<<compressedShift - 1))
		sectors := int64(entry&^flagCopied&^flagCompressed) >> compressedShift // beyond the first
		n := min((sectors+1)*512-from%512, d.length-from)
		if n <= 0 {
			return errOutside
		}
		packed := make([]byte, n)
		if _, err := d.file.ReadAt(packed, from); err != nil {
			return err
		}
		d.index = -1
		if d.data == nil {
			d.data = make([]byte, cluster)
		}
		if _, err := io.ReadFull(flate.NewReader(bytes.NewReader(packed)), d.data); err != nil {
			return fmt.Errorf("deflate: %w", err)
		}
		d.index = at / cluster
	}
	copy(p, d.data[at%cluster:])
	return nil
}

// holds reports whether the file has n bytes at a place.
func (d *Disk) holds(at, n int64) bool { return at >= 0 && n <= d.length && at <= d.length-n }
