package rootfs

import "io/fs"

// What Linux 6.12 reads of an erofs image (fs/erofs/erofs_fs.h). Numbers are little-endian.
const (
	blockSize   = 4096
	blockBits   = 12
	superOffset = 1024
	superMagic  = 0xE0F5E1E2
	slotSize    = 32 // an inode's number is its place, in slots

	compatChecksum   = 0x1
	incompatLZ4      = 0x1 // compressed data ends with its last block: zeros are before it
	incompatClusters = 0x2 // the configuration of algorithms behind the superblock, and compressed extents of more than a block
)

// superblock is struct erofs_super_block.
type superblock struct {
	Magic, Checksum, Compat               uint32
	BlockBits, Slots                      uint8
	Root                                  uint16
	Inodes, Time                          uint64
	TimeNsec, Blocks, MetaBlock, Xattrs   uint32
	UUID, Volume                          [16]byte
	Incompat                              uint32
	Algorithms, ExtraDevices, DeviceTable uint16
	DirBlockBits, XattrPrefixes           uint8
	XattrPrefixStart                      uint32
	Packed                                uint64
	_                                     [24]byte
}

// configuration is that of LZ4, struct z_erofs_lz4_cfgs, and its length before it.
type configuration struct {
	Length      uint16
	MaxDistance uint16
	MaxBlocks   uint16 // of a compressed extent
	_           [10]byte
}

const lz4Number = 0 // of the algorithms

// layout is where an inode's data is.
type layout uint16

const (
	flatPlain  layout = 0 // in blocks one after the other
	compressed layout = 1 // in extents; an index of all logical blocks is behind the inode
	flatInline layout = 2 // behind the inode, if there is less than a block of it
)

// inode is struct erofs_inode_compact: it is dated as the superblock says.
type inode struct {
	Format, Xattrs, Mode, Links uint16
	Size                        uint32
	_                           uint32
	Where                       uint32 // first block; number of blocks if it is compressed
	Number                      uint32
	UID, GID                    uint16
	_                           uint32
}

// entry is struct erofs_dirent. A directory is blocks of them, each with the names behind.
type entry struct {
	Inode  uint64
	Name   uint16 // offset in the block
	Type   uint8
	Unused uint8
}

const entrySize = 12

// mapHeader is struct z_erofs_map_header, and the eight bytes that are between it and the index.
type mapHeader struct {
	_           uint32
	Advise      uint16
	Algorithm   uint8
	ClusterBits uint8
	_           [8]byte
}

const (
	mapHeaderSize  = 16
	adviseClusters = 0x2 // extents may be of more than a block
)

// cluster is struct z_erofs_lcluster_index: what the index says of a logical block.
type cluster struct {
	Type   uint16
	Offset uint16 // in the block, where the extent begins
	// Where the extent is; of a block inside one, 16 bits for how far back that begins and 16 for how far on the next one does.
	Where uint32
}

const (
	clusterSize   = 8
	clusterPlain  = 0
	clusterHead   = 1
	clusterInside = 2
	// blockCount has the first block inside an extent say of how many blocks its compressed data is.
	blockCount = 1 << 11
)

// File types of inodes and, beside them, of directory entries.
const (
	modeDir, typeDir   = 0o040000, 2
	modeFile, typeFile = 0o100000, 1
	modeLink, typeLink = 0o120000, 7
)

func unixMode(m fs.FileMode) uint16 {
	switch m.Type() {
	case fs.ModeDir:
		return modeDir | uint16(m.Perm())
	case fs.ModeSymlink:
		return modeLink | uint16(m.Perm())
	}
	return modeFile | uint16(m.Perm())
}

func entryType(m fs.FileMode) uint8 {
	switch m.Type() {
	case fs.ModeDir:
		return typeDir
	case fs.ModeSymlink:
		return typeLink
	}
	return typeFile
}

func blocks(size int) int { return (size + blockSize - 1) / blockSize }
