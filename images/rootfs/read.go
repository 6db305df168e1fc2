package rootfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pierrec/lz4/v4"
)

// errForeign says that an image is none that Write makes. It may be an erofs image all the same.
var errForeign = errors.New("erofs: is not one of ours")

const (
	mostInodes = 1 << 16
	mostSize   = 1 << 28 // of a file
	mostNames  = 4 << 20 // bytes of all directories
)

// Open reads an image that Write has made. Reading from the result is safe in several goroutines at once if reading from r is. Of an image that
// somebody else has made it says so, or reads it rightly.
func Open(r io.ReaderAt) (fs.FS, error) {
	var s superblock
	if err := readAt(r, superOffset, &s); err != nil || s.Magic != superMagic {
		return nil, errForeign
	}
	if s.BlockBits != blockBits || s.Slots != 0 || s.Incompat&^(incompatLZ4|incompatClusters) != 0 || s.Algorithms&^(1<<lz4Number) != 0 {
		return nil, fmt.Errorf("%w: features %#x, algorithms %#x", errForeign, s.Incompat, s.Algorithms)
	}
	image := &image{r: r, super: s, time: time.Unix(int64(s.Time), int64(s.TimeNsec)).UTC(), files: map[string]*info{}, seen: map[uint64]bool{}}
	return image, image.walk(uint64(s.Root), ".")
}

func readAt(r io.ReaderAt, at int64, into any) error {
	b := make([]byte, binary.Size(into))
	if _, err := r.ReadAt(b, at); err != nil {
		return err
	}
	_, err := binary.Decode(b, binary.LittleEndian, into)
	return err
}

// image is an fs.FS, an fs.ReadDirFS and an fs.ReadLinkFS.
type image struct {
	r     io.ReaderAt
	super superblock
	time  time.Time
	files map[string]*info
	seen  map[uint64]bool // inodes: each has one name
	names int             // bytes of directories
}

// Owner is what Sys of a file's FileInfo is.
type Owner struct{ UID, GID int }

// info is a file, before its data is read.
type info struct {
	image    *image
	name     string
	inode    inode
	place    int64
	children []fs.DirEntry
}

func (i *info) Name() string { return i.name }
func (i *info) Size() int64  { return int64(i.inode.Size) }
func (i *info) Mode() fs.FileMode {
	m := fs.FileMode(i.inode.Mode & 0o777)
	for bit, is := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.inode.Mode&bit != 0 {
			m |= is
		}
	}
	switch i.inode.Mode &^ 0o7777 {
	case modeFile:
		return m
	case modeDir:
		return m | fs.ModeDir
	case modeLink:
		return m | fs.ModeSymlink
	}
	return m | fs.ModeIrregular // a device: no image of ours has one
}
func (i *info) ModTime() time.Time         { return i.image.time }
func (i *info) IsDir() bool                { return i.Mode().IsDir() }
func (i *info) Sys() any                   { return Owner{int(i.inode.UID), int(i.inode.GID)} }
func (i *info) Type() fs.FileMode          { return i.Mode().Type() }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }

// walk takes in the inode of a number, and what is below it.
func (m *image) walk(number uint64, name string) error {
	if number > 1<<40 || len(m.files) >= mostInodes || m.files[name] != nil || m.seen[number] {
		return fmt.Errorf("%w: inode %d at %q", errForeign, number, name)
	}
	m.seen[number] = true
	i := &info{image: m, name: path.Base(name), place: int64(m.super.MetaBlock)*blockSize + int64(number)*slotSize}
	if err := readAt(m.r, i.place, &i.inode); err != nil {
		return fmt.Errorf("erofs: inode of %q: %w", name, err)
	}
	if i.inode.Format&^0xe != 0 || i.inode.Xattrs != 0 || i.inode.Size > mostSize {
		return fmt.Errorf("%w: %q has format %d, %d bytes", errForeign, name, i.inode.Format, i.inode.Size)
	}
	m.files[name] = i
	if !i.IsDir() {
		return nil
	}
	if err := m.walkDirectory(i, name); err != nil {
		return err
	}
	slices.SortFunc(i.children, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return nil
}

func (m *image) walkDirectory(i *info, name string) error {
	if m.names += int(i.inode.Size); m.names > mostNames {
		return fmt.Errorf("%w: its directories have %d bytes", errForeign, m.names)
	}
	data, err := i.read()
	if err != nil {
		return fmt.Errorf("erofs: %q: %w", name, err)
	}
	for block := range slices.Chunk(data, blockSize) {
		err := eachEntry(block, func(child string, number uint64) error {
			if child == "." || child == ".." {
				return nil
			}
			below := path.Join(name, child)
			if !fs.ValidPath(child) || strings.Contains(child, "/") {
				return fmt.Errorf("%w: a name in %q is %q", errForeign, name, child)
			}
			if err := m.walk(number, below); err != nil {
				return err
			}
			i.children = append(i.children, m.files[below])
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachEntry calls f for each entry of a directory's block.
func eachEntry(block []byte, f func(name string, number uint64) error) error {
	var all []entry
	for at := 0; at == 0 || at < int(all[0].Name); at += entrySize {
		var e entry
		if _, err := binary.Decode(block[min(at, len(block)):], binary.LittleEndian, &e); err != nil || int(e.Name) > len(block) {
			return fmt.Errorf("%w: a directory ends within an entry", errForeign)
		}
		all = append(all, e)
	}
	for k, e := range all {
		end := len(block)
		if k+1 < len(all) {
			end = int(all[k+1].Name)
		}
		if int(e.Name) > end {
			return fmt.Errorf("%w: the names of a directory are not in order", errForeign)
		}
		name, _, _ := bytes.Cut(block[e.Name:end], []byte{0})
		if err := f(string(name), e.Inode); err != nil {
			return err
		}
	}
	return nil
}

// read returns all data of a file.
func (i *info) read() ([]byte, error) {
	data := &bytes.Buffer{} // which grows with what is there, not with what is said
	at, size := int64(i.inode.Where)*blockSize, i.Size()
	switch layout(i.inode.Format >> 1) {
	case flatPlain:
	case compressed:
		err := i.decompress(data)
		return data.Bytes(), err
	case flatInline:
		whole := size / blockSize * blockSize
		if _, err := io.CopyN(data, io.NewSectionReader(i.image.r, at, whole), whole); err != nil {
			return nil, err
		}
		at, size = i.place+slotSize, size-whole
	default:
		return nil, fmt.Errorf("%w: %q has layout %d", errForeign, i.name, i.inode.Format>>1)
	}
	_, err := io.CopyN(data, io.NewSectionReader(i.image.r, at, size), size)
	return data.Bytes(), err
}

// decompress writes the data of a compressed file.
func (i *info) decompress(into *bytes.Buffer) error {
	count := blocks(int(i.inode.Size))
	list := io.NewSectionReader(i.image.r, i.place+slotSize+mapHeaderSize, int64(count)*clusterSize)
	at := func(k int) (c cluster, err error) {
		if k < count {
			err = readAt(list, int64(k)*clusterSize, &c)
		}
		return c, err
	}
	for k := 0; k < count; {
		c, err := at(k)
		if err != nil {
			return err
		}
		next, err := at(k + 1)
		if err != nil {
			return err
		}
		length := 1
		if c.Type == clusterHead && next.Type == clusterInside {
			length += int(next.Where >> 16)
		}
		end, err := at(k + length)
		if err != nil {
			return err
		}
		if c.Type == clusterHead && end.Type == clusterPlain && end.Offset > 0 { // the extent ends in that block, with the file
			length++
		}
		if c.Type > clusterHead || c.Offset != 0 || length > extentSize/blockSize || k+length > count {
			return fmt.Errorf("%w: the index of %q at %d", errForeign, i.name, k)
		}
		if err := i.extent(into, c, next, min(length*blockSize, int(i.inode.Size)-k*blockSize)); err != nil {
			return err
		}
		k += length
	}
	return nil
}

// extent writes size bytes that are stored where c, its first block, says.
func (i *info) extent(into *bytes.Buffer, c, next cluster, size int) error {
	if c.Type == clusterPlain {
		_, err := io.CopyN(into, io.NewSectionReader(i.image.r, int64(c.Where)*blockSize, int64(size)), int64(size))
		return err
	}
	count := 1
	if back := next.Where & 0xffff; next.Type == clusterInside && back&blockCount != 0 {
		count = int(back &^ blockCount)
	}
	if count > extentSize/blockSize {
		return fmt.Errorf("%w: %q has an extent of %d blocks", errForeign, i.name, count)
	}
	packed := make([]byte, count*blockSize)
	if _, err := i.image.r.ReadAt(packed, int64(c.Where)*blockSize); err != nil {
		return err
	}
	plain := make([]byte, size)
	n, err := lz4.UncompressBlock(bytes.TrimLeft(packed, "\x00"), plain)
	if err != nil || n != size {
		return fmt.Errorf("erofs: %q: block %d: %d bytes of %d: %v", i.name, c.Where, n, size, err)
	}
	into.Write(plain)
	return nil
}

// Open returns a file. All its data is in memory then: it is an io.ReaderAt, too.
func (m *image) Open(name string) (fs.File, error) { return m.open(name, 8) }

func (m *image) open(name string, links int) (fs.File, error) {
	i := m.files[name]
	if i == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if i.IsDir() {
		return &directory{info: i, rest: i.children}, nil
	}
	data, err := i.read()
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if i.Type() == fs.ModeSymlink {
		if target := path.Join(path.Dir(name), string(data)); links > 0 && fs.ValidPath(target) {
			return m.open(target, links-1)
		}
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{info: i, Reader: bytes.NewReader(data)}, nil
}

// ReadDir returns what is in a directory, by name.
func (m *image) ReadDir(name string) ([]fs.DirEntry, error) {
	if i := m.files[name]; i != nil && i.IsDir() {
		return slices.Clone(i.children), nil
	}
	return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
}

// Lstat describes a file; of a symbolic link, the link.
func (m *image) Lstat(name string) (fs.FileInfo, error) {
	if i := m.files[name]; i != nil {
		return i, nil
	}
	return nil, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

// ReadLink returns what a symbolic link points to.
func (m *image) ReadLink(name string) (string, error) {
	i := m.files[name]
	if i == nil || i.Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	data, err := i.read()
	return string(data), err
}

type file struct {
	*info
	*bytes.Reader
}

func (f *file) Size() int64                { return f.info.Size() }
func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (*file) Close() error                 { return nil }

type directory struct {
	*info
	rest []fs.DirEntry
}

func (d *directory) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *directory) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("is a directory")}
}
func (*directory) Close() error { return nil }

// ReadDir returns the next n entries, or all that are left.
func (d *directory) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	part := d.rest[:min(n, len(d.rest))]
	d.rest = d.rest[len(part):]
	return part, nil
}
