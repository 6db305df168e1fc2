// Package ext4 makes a small empty ext4 file system, which the kernel then grows to the size of its partition (EXT4_IOC_RESIZE_FS).
// PID 1 makes the state partition's with it, so it needs the standard library only; tests make disks.
//
// The layout is fixed: one block group of 64 MiB with blocks of 4 KiB, a journal, checksums of all metadata (metadata_csum), 64-bit block
// numbers, extents, and group descriptors that grow with the file system (meta_bg). It is described in
// https://docs.kernel.org/filesystems/ext4/; e2fsck -fn has nothing to say about it.
package ext4

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Size is how large the file system is that Write makes.
const Size = groupBlocks * block

const (
	block       = 4096
	groupBlocks = 16384 // of the first group, of at most 32768
	inodes      = 8192  // of each group
	inodeSize   = 256
	descSize    = 64

	// Where things are, in blocks.
	descBlock    = 1
	blockBitmap  = 2
	inodeBitmap  = 3
	inodeTable   = 4
	rootDir      = inodeTable + inodes*inodeSize/block
	lostAndFound = rootDir + 1
	lostBlocks   = 4
	journal      = lostAndFound + lostBlocks
	// journalBlocks is twice what the kernel wants at least.
	journalBlocks = 2048
	used          = journal + journalBlocks
)

// Inodes with a meaning of their own.
const (
	inodeRoot    = 2
	inodeJournal = 8
	inodeLost    = 11
	firstFree    = 12
)

// Options of a file system.
type Options struct {
	UUID  [16]byte
	Label string // at most 16 bytes
	Time  time.Time
}

// Disk is what a file system is written to.
type Disk interface {
	io.WriterAt
	// Sync returns when everything is on the medium.
	Sync() error
}

// Write makes a file system of Size bytes at the beginning of d. The superblock is written last, when all else is on the medium: before
// that there is nothing that could be mounted.
func Write(d Disk, o Options) error {
	if len(o.Label) > 16 {
		return fmt.Errorf("ext4: the label %q is longer than 16 bytes", o.Label)
	}
	m := maker{Options: o, seed: crc(^uint32(0), o.UUID[:])}
	nothing := []part{{0, make([]byte, block)}} // no superblock from earlier times
	for _, parts := range [][]part{nothing, m.parts(), {{superblockAt, m.superblock()}}} {
		for _, p := range parts {
			if _, err := d.WriteAt(p.data, p.at); err != nil {
				return fmt.Errorf("ext4: %w", err)
			}
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("ext4: %w", err)
		}
	}
	return nil
}

// part is what stands at a place in bytes.
type part struct {
	at   int64
	data []byte
}

type maker struct {
	Options
	seed uint32 // of all checksums
}

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc goes on with a CRC-32C as the kernel does: without the inversions at both ends.
func crc(sum uint32, data []byte) uint32 { return ^crc32.Update(^sum, castagnoli, data) }

func crcNumber(sum, n uint32) uint32 { return crc(sum, le.AppendUint32(nil, n)) }

// parts are all but the superblock, the journal's content included: what an earlier file system left there must not be replayed.
func (m maker) parts() []part {
	blocks, nodes := m.bitmaps()
	table := make([]byte, inodes*inodeSize)
	m.putInode(table, inodeRoot, inode{mode: 0o040755, links: 3, start: rootDir, blocks: 1})
	m.putInode(table, inodeJournal, inode{mode: 0o100600, links: 1, start: journal, blocks: journalBlocks})
	m.putInode(table, inodeLost, inode{mode: 0o040700, links: 2, start: lostAndFound, blocks: lostBlocks})
	log := make([]byte, journalBlocks*block)
	m.putJournal(log)
	return []part{
		{descBlock * block, m.descriptor(blocks, nodes)},
		{blockBitmap * block, blocks},
		{inodeBitmap * block, nodes},
		{inodeTable * block, table},
		{rootDir * block, m.rootDirectory()},
		{lostAndFound * block, m.emptyDirectory()},
		{journal * block, log},
	}
}

// bitmaps say which blocks and inodes of the group are used; what is beyond the file system counts as used.
func (m maker) bitmaps() (blocks, nodes []byte) {
	blocks, nodes = make([]byte, block), make([]byte, block)
	mark(blocks, 0, used)
	mark(blocks, groupBlocks, 8*block)
	mark(nodes, 0, firstFree-1)
	mark(nodes, inodes, 8*block)
	return blocks, nodes
}

func mark(bitmap []byte, from, to int) {
	for i := from; i < to; i++ {
		bitmap[i/8] |= 1 << (i % 8)
	}
}

// descriptor is the block with the descriptor of the one group.
func (m maker) descriptor(blocks, nodes []byte) []byte {
	const inodeTableZeroed = 4
	b := make([]byte, block)
	le.PutUint32(b[0x00:], blockBitmap)
	le.PutUint32(b[0x04:], inodeBitmap)
	le.PutUint32(b[0x08:], inodeTable)
	le.PutUint16(b[0x0c:], groupBlocks-used)
	le.PutUint16(b[0x0e:], inodes-(firstFree-1))
	le.PutUint16(b[0x10:], 2) // directories
	le.PutUint16(b[0x12:], inodeTableZeroed)
	le.PutUint16(b[0x1c:], inodes-(firstFree-1)) // never used, at the table's end
	sum := crc(m.seed, blocks)
	le.PutUint16(b[0x18:], uint16(sum))
	le.PutUint16(b[0x38:], uint16(sum>>16))
	sum = crc(m.seed, nodes[:inodes/8])
	le.PutUint16(b[0x1a:], uint16(sum))
	le.PutUint16(b[0x3a:], uint16(sum>>16))
	le.PutUint16(b[0x1e:], uint16(crc(crcNumber(m.seed, 0), b[:descSize])))
	return b
}

// inode is a file in one run of blocks.
type inode struct {
	mode, links   uint16
	start, blocks uint32
}

const extentsFlag = 0x80000

// putInode writes inode number n into the table.
func (m maker) putInode(table []byte, n int, i inode) {
	b := table[(n-1)*inodeSize : n*inodeSize]
	now := uint32(m.Time.Unix())
	size := i.blocks * block
	le.PutUint16(b[0x00:], i.mode)
	le.PutUint32(b[0x04:], size)
	for _, at := range []int{0x08, 0x0c, 0x10, 0x90} { // accessed, changed, modified, created
		le.PutUint32(b[at:], now)
	}
	le.PutUint16(b[0x1a:], i.links)
	le.PutUint32(b[0x1c:], size/512)
	le.PutUint32(b[0x20:], extentsFlag)
	copy(b[0x28:], i.extents())
	le.PutUint16(b[0x80:], 32) // of the fields beyond 128 bytes
	sum := crc(crcNumber(crcNumber(m.seed, uint32(n)), 0), b)
	le.PutUint16(b[0x7c:], uint16(sum))
	le.PutUint16(b[0x82:], uint16(sum>>16))
}

// extents is the content of i_block: the tree's root with one leaf.
func (i inode) extents() []byte {
	b := make([]byte, 60)
	le.PutUint16(b[0:], 0xf30a)
	le.PutUint16(b[2:], 1) // entries
	le.PutUint16(b[4:], 4) // room for
	le.PutUint16(b[16:], uint16(i.blocks))
	le.PutUint32(b[20:], i.start)
	return b
}

// rootDirectory holds lost+found.
func (m maker) rootDirectory() []byte {
	b := make([]byte, block)
	at := putEntry(b, 0, 12, inodeRoot, ".")
	at = putEntry(b, at, 12, inodeRoot, "..")
	putEntry(b, at, block-tailSize-at, inodeLost, "lost+found")
	m.putTail(b, inodeRoot)
	return b
}

// emptyDirectory is lost+found.
func (m maker) emptyDirectory() []byte {
	b := make([]byte, lostBlocks*block)
	at := putEntry(b, 0, 12, inodeLost, ".")
	putEntry(b, at, block-tailSize-at, inodeRoot, "..")
	m.putTail(b[:block], inodeLost)
	for i := 1; i < lostBlocks; i++ {
		rest := b[i*block : (i+1)*block]
		putEntry(rest, 0, block-tailSize, 0, "")
		m.putTail(rest, inodeLost)
	}
	return b
}

const tailSize = 12

// putEntry writes the entry of a directory, and returns where the next one goes.
func putEntry(b []byte, at, length int, n uint32, name string) int {
	const directory = 2
	le.PutUint32(b[at:], n)
	le.PutUint16(b[at+4:], uint16(length))
	b[at+6] = byte(len(name))
	if n != 0 {
		b[at+7] = directory
	}
	copy(b[at+8:], name)
	return at + length
}

// putTail writes the checksum of a block of the directory n, which looks like an unused entry.
func (m maker) putTail(b []byte, n uint32) {
	tail := b[block-tailSize:]
	le.PutUint16(tail[4:], tailSize)
	tail[7] = 0xde
	le.PutUint32(tail[8:], crc(crcNumber(crcNumber(m.seed, n), 0), b[:block-tailSize]))
}

// putJournal writes the superblock of an empty journal, which is big-endian. The kernel adds the checksums when it first mounts it.
func (m maker) putJournal(b []byte) {
	be := binary.BigEndian
	be.PutUint32(b[0x00:], 0xc03b3998)
	be.PutUint32(b[0x04:], 4) // a superblock, version 2
	be.PutUint32(b[0x0c:], block)
	be.PutUint32(b[0x10:], journalBlocks)
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first commit
	copy(b[0x30:], m.UUID[:])
	be.PutUint32(b[0x40:], 1) // users
}
