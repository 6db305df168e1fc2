// Package fat changes a FAT32 file system in place (Microsoft, "FAT32 File System Specification", 1.03), so that a power cut at any moment leaves
// each file as it was or as it was to become. The plugin upgrade keeps boot entries with it on the EFI system partition; PID 1 looks for one.
//
// A file appears, goes and changes its name by one write of one sector, which a disk does whole or not at all. What a write needs is on the
// disk before it:
//
//	Write:  the data, in free clusters · their chain, in both tables · the entry
//	Rename: the entry; or, where the new name needs more room, the new entry · the old one
//	Remove: the entry · the chain
//
// What a cut leaves behind are chains that no entry leads to. Open takes them for free, and the next change clears them. Nothing else may
// write to the file system meanwhile: who opens a partition for this opens it with O_EXCL, which a mounted one refuses.
//
// It needs the standard library only, because PID 1 imports it. images/fat makes file systems.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Disk is the partition with the file system.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written is on the disk.
	Sync() error
}

const (
	sector    = 512
	entrySize = 32
	endMark   = 0x0ffffff8 // and above: the last cluster of a chain
	badMark   = 0x0ffffff7
	valueMask = 0x0fffffff
	// most is how large a table may be that is read: that of a partition of 8 GiB with clusters of 4 KiB.
	most = 8 << 20
)

// FS is a file system that is open. It is for one goroutine.
type FS struct {
	disk     Disk
	cluster  int64 // bytes
	data     int64 // where cluster 2 begins
	tables   []int64
	root     uint32
	info     int64 // where the information sector is; 0 for none
	table    []uint32
	dirty    map[int64]bool // sectors of the table
	informed bool
}

// Open reads the file system of a disk. It fails if that is no FAT32 with sectors of 512 bytes, or is damaged.
func Open(d Disk) (*FS, error) {
	f := &FS{disk: d, dirty: map[int64]bool{}}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("FAT: %w", err)
	}
	return f, nil
}

func (f *FS) open() error {
	b := make([]byte, sector)
	if _, err := f.disk.ReadAt(b, 0); err != nil {
		return err
	}
	le := binary.LittleEndian
	perCluster, reserved, copies := int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	perTable, sectors := int64(le.Uint32(b[36:])), int64(le.Uint32(b[32:]))
	switch {
	case b[510] != 0x55 || b[511] != 0xaa || string(b[82:90]) != "FAT32   ":
		return errors.New("no FAT32 file system")
	case le.Uint16(b[11:]) != sector || perCluster == 0 || copies == 0 || perTable == 0 || perTable*sector > most || reserved == 0:
		return fmt.Errorf("sectors of %d bytes, %d a cluster, %d tables of %d sectors: not understood", le.Uint16(b[11:]), perCluster, copies, perTable)
	case le.Uint16(b[40:])&0x80 != 0:
		return errors.New("its tables differ: not understood")
	}
	f.cluster, f.root, f.info = perCluster*sector, le.Uint32(b[44:]), int64(le.Uint16(b[48:]))*sector
	for i := range copies {
		f.tables = append(f.tables, (reserved+i*perTable)*sector)
	}
	f.data = (reserved + copies*perTable) * sector
	clusters := (sectors - f.data/sector) / perCluster
	if clusters < 1 || (clusters+2)*4 > perTable*sector {
		return fmt.Errorf("%d clusters, a table of %d sectors", clusters, perTable)
	}
	raw := make([]byte, (clusters+2)*4)
	if _, err := f.disk.ReadAt(raw, f.tables[0]); err != nil {
		return err
	}
	f.table = make([]uint32, clusters+2)
	for i := range f.table {
		f.table[i] = le.Uint32(raw[4*i:])
	}
	return f.sweep()
}

// offset returns where a cluster lies.
func (f *FS) offset(cluster uint32) int64 { return f.data + int64(cluster-2)*f.cluster }

// chain returns the clusters of a file or a directory. It fails if they lead out of the file system, or in a circle.
func (f *FS) chain(first uint32) (all []uint32, err error) {
	if first == 0 {
		return nil, nil
	}
	for c := first; ; c = f.table[c] & valueMask {
		if c >= endMark {
			return all, nil
		}
		if c < 2 || int64(c) >= int64(len(f.table)) || len(all) > len(f.table) {
			return nil, fmt.Errorf("the chain of cluster %d is damaged", first)
		}
		all = append(all, c)
	}
}

// sweep clears what no file has: the rest of a change that was cut short. It is written with the next change.
func (f *FS) sweep() error {
	used := make([]bool, len(f.table))
	if err := f.mark(used, f.root, 0); err != nil {
		return err
	}
	for i := 2; i < len(f.table); i++ {
		if value := f.table[i] & valueMask; !used[i] && value != 0 && value != badMark {
			f.set(uint32(i), 0)
		}
	}
	return nil
}

// mark marks the clusters of a directory and of all that is below it.
func (f *FS) mark(used []bool, dir uint32, depth int) error {
	if depth > 16 {
		return errors.New("directories in a circle")
	}
	clusters, err := f.chain(dir)
	if err != nil {
		return err
	}
	for _, c := range clusters {
		used[c] = true
	}
	d, err := f.read(dir)
	if err != nil {
		return err
	}
	for _, e := range d.entries {
		if e.directory() {
			err = f.mark(used, e.first, depth+1)
		} else if clusters, err = f.chain(e.first); err == nil {
			for _, c := range clusters {
				used[c] = true
			}
		}
		if err != nil {
			return fmt.Errorf("%q: %w", e.name, err)
		}
	}
	return nil
}

func (f *FS) set(cluster, value uint32) {
	f.table[cluster] = f.table[cluster]&^valueMask | value
	f.dirty[int64(cluster)*4/sector] = true
}

// writeTable writes what has changed of the table into every copy, and waits for it.
func (f *FS) writeTable() error {
	for s := range f.dirty {
		b := make([]byte, sector)
		for i := range sector / 4 {
			if n := s*sector/4 + int64(i); n < int64(len(f.table)) {
				binary.LittleEndian.PutUint32(b[4*i:], f.table[n])
			}
		}
		for _, table := range f.tables {
			if _, err := f.disk.WriteAt(b, table+s*sector); err != nil {
				return err
			}
		}
	}
	clear(f.dirty)
	return f.disk.Sync()
}

// uncount says that nobody counts free clusters: a number there could be wrong after a cut.
func (f *FS) uncount() error {
	if f.informed || f.info == 0 {
		return nil
	}
	b := make([]byte, sector)
	if _, err := f.disk.ReadAt(b, f.info); err != nil {
		return err
	}
	if string(b[:4]) == "RRaA" && string(b[484:488]) == "rrAa" {
		binary.LittleEndian.PutUint32(b[488:], 0xffffffff)
		if _, err := f.disk.WriteAt(b, f.info); err != nil {
			return err
		}
	}
	f.informed = true
	return f.disk.Sync()
}

// allocate returns free clusters for size bytes, in one piece if there is one.
func (f *FS) allocate(size int64) ([]uint32, error) {
	need := int((size + f.cluster - 1) / f.cluster)
	var free []uint32
	run := 0
	for i := 2; i < len(f.table); i++ {
		if f.table[i]&valueMask != 0 {
			run = 0
			continue
		}
		free = append(free, uint32(i))
		if run++; run >= need {
			return free[len(free)-need:], nil
		}
	}
	if len(free) < need {
		return nil, fmt.Errorf("%d bytes are needed, and %d free: %w", size, int64(len(free))*f.cluster, ErrNoSpace)
	}
	return free[:need], nil
}

// ErrNoSpace says that something does not fit.
var ErrNoSpace = errors.New("no space")

// Free is how many bytes are free.
func (f *FS) Free() (n int64) {
	for _, value := range f.table[2:] {
		if value&valueMask == 0 {
			n += f.cluster
		}
	}
	return n
}

// File is a file of a directory.
type File struct {
	Name string
	Size int64
}

// List returns the files of a directory, without directories. It fails with fs.ErrNotExist.
func (f *FS) List(dir string) (files []File, err error) {
	d, err := f.directory(dir)
	if err != nil {
		return nil, fmt.Errorf("FAT: %s: %w", dir, err)
	}
	for _, e := range d.entries {
		if !e.directory() {
			files = append(files, File{e.name, int64(e.size)})
		}
	}
	return files, nil
}

// Piece is a part of a file: Size bytes at Offset of the partition.
type Piece struct{ Offset, Size int64 }

// Pieces returns where a file lies. It fails with fs.ErrNotExist.
func (f *FS) Pieces(path string) (all []Piece, err error) {
	_, e, err := f.find(path)
	if err == nil && e.first == 0 && e.size > 0 {
		err = errors.New("it has no clusters")
	}
	var clusters []uint32
	if err == nil {
		clusters, err = f.chain(e.first)
	}
	if err != nil {
		return nil, fmt.Errorf("FAT: %s: %w", path, err)
	}
	left := int64(e.size)
	for _, c := range clusters {
		n := min(left, f.cluster)
		left -= n
		if last := len(all) - 1; last >= 0 && all[last].Offset+all[last].Size == f.offset(c) {
			all[last].Size += n
		} else if n > 0 {
			all = append(all, Piece{f.offset(c), n})
		}
	}
	if left > 0 {
		return nil, fmt.Errorf("FAT: %s: %d bytes of it are missing", path, left)
	}
	return all, nil
}

// Read returns a file of at most limit bytes. It fails with fs.ErrNotExist.
func (f *FS) Read(path string, limit int64) ([]byte, error) {
	pieces, err := f.Pieces(path)
	if err != nil {
		return nil, err
	}
	var data []byte
	for _, p := range pieces {
		if int64(len(data))+p.Size > limit {
			return nil, fmt.Errorf("FAT: %s: longer than %d bytes", path, limit)
		}
		b := make([]byte, p.Size)
		if _, err := f.disk.ReadAt(b, p.Offset); err != nil {
			return nil, fmt.Errorf("FAT: %s: %w", path, err)
		}
		data = append(data, b...)
	}
	return data, nil
}

// Write makes a file of the size bytes that content has, in a directory that is there. It returns when the file is on the disk. It fails with
// fs.ErrExist, ErrNoSpace or, when content ends early, io.ErrUnexpectedEOF; then there is no such file.
func (f *FS) Write(path string, size int64, content io.Reader, at time.Time) error {
	if err := f.write(path, size, content, at); err != nil {
		return fmt.Errorf("FAT: %s: %w", path, err)
	}
	return nil
}

func (f *FS) write(path string, size int64, content io.Reader, at time.Time) error {
	dir, name, err := f.absent(path)
	if err != nil {
		return err
	}
	if size < 1 || size > 0xffffffff {
		return fmt.Errorf("a file of %d bytes", size)
	}
	if size > f.Free() {
		return fmt.Errorf("%d bytes are needed, and %d free: %w", size, f.Free(), ErrNoSpace)
	}
	if err := f.uncount(); err != nil {
		return err
	}
	slots, err := dir.slots(name, 0, uint32(size), at)
	if err != nil {
		return err
	}
	run, err := dir.room(len(slots))
	if err != nil {
		return err
	}
	clusters, err := f.allocate(size)
	if err != nil {
		return err
	}
	slots[len(slots)-1].begin(clusters[0])
	b := make([]byte, f.cluster)
	for _, c := range clusters {
		n := min(size, f.cluster)
		clear(b)
		if _, err := io.ReadFull(content, b[:n]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := f.disk.WriteAt(b, f.offset(c)); err != nil {
			return err
		}
		size -= n
	}
	if err := f.disk.Sync(); err != nil {
		return err
	}
	for i, c := range clusters {
		next := uint32(valueMask)
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		f.set(c, next)
	}
	if err := f.writeTable(); err != nil {
		return err
	}
	return dir.put(run, slots)
}

// Overwrite changes a file where it is; the size stays. Only sectors that differ are written, each whole or not at all.
func (f *FS) Overwrite(path string, data []byte) error {
	pieces, err := f.Pieces(path)
	if err != nil {
		return err
	}
	before, err := f.Read(path, int64(len(data)))
	if err != nil {
		return err
	}
	if len(before) != len(data) {
		return fmt.Errorf("FAT: %s: it has %d bytes, and not %d", path, len(before), len(data))
	}
	for _, p := range pieces {
		for at := int64(0); at < p.Size; at += sector {
			n := min(sector, p.Size-at)
			if string(before[at:at+n]) == string(data[at:at+n]) {
				continue
			}
			b := make([]byte, sector)
			copy(b, data[at:at+n])
			if _, err := f.disk.WriteAt(b, p.Offset+at); err != nil {
				return fmt.Errorf("FAT: %s: %w", path, err)
			}
		}
		before, data = before[p.Size:], data[p.Size:]
	}
	return f.disk.Sync()
}

// absent returns the directory of a path where nothing is yet, and the name there.
func (f *FS) absent(path string) (*directory, string, error) {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	dir, err := f.directory(parent)
	if err != nil {
		return nil, "", err
	}
	if dir.find(name) != nil {
		return nil, "", fs.ErrExist
	}
	return dir, name, nil
}

// Rename gives a file another name in its directory. It fails with fs.ErrNotExist or fs.ErrExist. After a cut the file may have both.
func (f *FS) Rename(path, name string) error {
	if err := f.rename(path, name); err != nil {
		return fmt.Errorf("FAT: rename %s to %s: %w", path, name, err)
	}
	return nil
}

func (f *FS) rename(path, name string) error {
	dir, e, err := f.find(path)
	if err != nil {
		return err
	}
	if other := dir.find(name); other != nil {
		return fs.ErrExist
	}
	slots, err := dir.slots(name, e.first, e.size, time.Time{})
	if err != nil {
		return err
	}
	copy(slots[len(slots)-1][12:26], e.short[12:26]) // times, and the cluster that is there already
	if len(slots) <= len(e.at) && sameSector(e.at) {
		for len(slots) < len(e.at) {
			slots = append([]slot{{deleted}}, slots...)
		}
		return dir.put(e.at, slots)
	}
	if err := f.uncount(); err != nil {
		return err
	}
	run, err := dir.room(len(slots))
	if err != nil {
		return err
	}
	if err := dir.put(run, slots); err != nil {
		return err
	}
	return dir.drop(e)
}

// Remove removes a file. It fails with fs.ErrNotExist. What another name leads to stays.
func (f *FS) Remove(path string) error {
	dir, e, err := f.find(path)
	if err == nil {
		err = f.uncount()
	}
	if err == nil {
		err = dir.drop(e)
	}
	if err == nil {
		err = f.sweep()
	}
	if err == nil {
		err = f.writeTable()
	}
	if err != nil {
		return fmt.Errorf("FAT: remove %s: %w", path, err)
	}
	return nil
}
