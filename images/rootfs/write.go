package rootfs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/content"
)

// inlineMost is the most data that is stored behind its inode.
const inlineMost = blockSize / 2

// node is an entry on its way into the image.
type node struct {
	Entry
	parent   *node
	children []*node // of a directory

	data    content.Content // of what is not compressed; a directory's is known when all places are
	size    int
	layout  layout
	extents []extent // of what is compressed
	place   int      // of the inode
	first   int      // block of the data that is not behind the inode
}

// nodes makes a tree of entries that are sorted, the root first.
func nodes(entries []Entry) []*node {
	all := make([]*node, len(entries))
	byPath := map[string]*node{}
	for i, e := range entries {
		n := &node{Entry: e, data: e.Content}
		if n.data == nil {
			n.data = content.String(e.Target)
		}
		n.size = int(n.data.Size())
		if all[i], byPath[e.Path] = n, n; i == 0 {
			n.parent = n
			continue
		}
		n.parent = byPath[strings.TrimPrefix(path.Dir(e.Path), ".")]
		n.parent.children = append(n.parent.children, n)
	}
	return all
}

// write writes the image of all, dated t, into w, which is empty, and returns how large it is: behind the last data are zeros.
func write(w io.WriterAt, all []*node, t time.Time) (size int64, err error) {
	for _, n := range all {
		if n.Mode.IsDir() {
			n.size = len(n.directory())
		}
	}
	if err := choose(all); err != nil {
		return 0, err
	}
	inodes, total := arrange(all)
	meta := make([]byte, inodes)
	for i, n := range all {
		if n.Mode.IsDir() {
			n.data = content.String(string(n.directory()))
		}
		if err := n.write(w, meta[n.place:], i+1); err != nil {
			return 0, fmt.Errorf("%q: %w", n.Path, err)
		}
	}
	describe(meta, all, total, t)
	_, err = w.WriteAt(meta, 0)
	return int64(total) * blockSize, err
}

// choose settles the layout of each node's data.
func choose(all []*node) error {
	var large []*node
	var contents []content.Content
	for _, n := range all {
		switch {
		case n.size > 0 && n.size <= inlineMost:
			n.layout = flatInline
		case n.size > inlineMost && n.Mode.IsRegular():
			large, contents = append(large, n), append(contents, n.Content)
		}
	}
	extents, err := compressAll(contents)
	if err != nil {
		return err
	}
	for i, n := range large {
		if n.extents = extents[i]; n.extents != nil {
			n.layout = compressed
		}
	}
	return nil
}

// arrange gives each inode and its data a place: the inodes, behind a block with the superblock, and then the data. It returns how many
// bytes there are until the end of the inodes, and how many blocks in all.
func arrange(all []*node) (inodes, total int) {
	at := blockSize
	for _, n := range all {
		size := slotSize
		switch n.layout {
		case flatInline:
			if size += n.size; at%blockSize+size > blockSize {
				at = blocks(at) * blockSize
			}
		case compressed:
			size += mapHeaderSize + blocks(n.size)*clusterSize
		}
		n.place = at
		at += (size + slotSize - 1) / slotSize * slotSize
	}
	total = blocks(at)
	for _, n := range all {
		n.first = total
		total += n.blocks()
	}
	return at, total
}

// blocks is how many the node takes beside its inode.
func (n *node) blocks() int {
	switch n.layout {
	case compressed:
		return stored(n.extents)
	case flatPlain:
		return blocks(n.size)
	}
	return 0
}

// write writes the inode, the inumth, into meta and what is not behind it into w.
func (n *node) write(w io.WriterAt, meta []byte, inum int) error {
	links := 1
	if n.Mode.IsDir() {
		links++
		for _, c := range n.children {
			if c.Mode.IsDir() {
				links++
			}
		}
	}
	i := inode{Format: uint16(n.layout) << 1, Mode: unixMode(n.Mode), Links: uint16(links), Size: uint32(n.size), Where: uint32(n.first), Number: uint32(inum)}
	if n.layout == compressed {
		i.Where = uint32(stored(n.extents))
	}
	head, err := binary.Append(nil, binary.LittleEndian, i)
	if err != nil {
		return err
	}
	copy(meta, head)
	switch n.layout {
	case flatInline:
		_, err := io.ReadFull(content.Reader(n.data), meta[slotSize:slotSize+n.size])
		return err
	case compressed:
		copy(meta[slotSize:], index(n.extents, n.first))
		return n.writeExtents(w)
	}
	return content.CopyAt(w, int64(n.first)*blockSize, n.data)
}

func (n *node) writeExtents(w io.WriterAt) error {
	at := int64(n.first) * blockSize
	for _, e := range n.extents {
		if _, err := w.WriteAt(e.data, at); err != nil {
			return err
		}
		at += int64(len(e.data))
	}
	return nil
}

// directory is the data of a directory. Its length does not depend on the places of the inodes.
func (n *node) directory() []byte {
	names := map[string]*node{".": n, "..": n.parent}
	for _, c := range n.children {
		names[path.Base(c.Path)] = c
	}
	var sorted []string
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	var data []byte
	for len(sorted) > 0 {
		size, count := 0, 0
		for _, name := range sorted {
			if size+entrySize+len(name) > blockSize {
				break
			}
			size += entrySize + len(name)
			count++
		}
		data = append(data, make([]byte, blocks(len(data))*blockSize-len(data))...)
		data = append(data, directoryBlock(sorted[:count], names)...)
		sorted = sorted[count:]
	}
	return data
}

func directoryBlock(sorted []string, names map[string]*node) []byte {
	var entries, text []byte
	for _, name := range sorted {
		e := entry{Inode: uint64(names[name].place / slotSize), Name: uint16(len(sorted)*entrySize + len(text)), Type: entryType(names[name].Mode)}
		entries, _ = binary.Append(entries, binary.LittleEndian, e) // of fixed size: cannot fail
		text = append(text, name...)
	}
	return append(entries, text...)
}

// describe writes the superblock.
func describe(meta []byte, all []*node, total int, t time.Time) {
	s := superblock{
		Magic: superMagic, Compat: compatChecksum, BlockBits: blockBits, Root: uint16(all[0].place / slotSize), Inodes: uint64(len(all)),
		Time: uint64(t.Unix()), Blocks: uint32(total), Incompat: incompatLZ4 | incompatClusters, Algorithms: 1 << lz4Number,
	}
	c := configuration{MaxDistance: 1<<16 - 1, MaxBlocks: extentSize / blockSize}
	c.Length = uint16(binary.Size(c) - binary.Size(c.Length))
	head, _ := binary.Append(nil, binary.LittleEndian, s) // of fixed size: cannot fail
	head, _ = binary.Append(head, binary.LittleEndian, c)
	copy(meta[superOffset:], head)
	// The kernel leaves out the last inversion of CRC-32C.
	sum := ^crc32.Checksum(meta[superOffset:blockSize], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(meta[superOffset+4:], sum)
}
