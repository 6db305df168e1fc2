package ext4

// superblockAt is where the superblock is, in bytes; superblockSize is how long it is.
const (
	superblockAt   = 1024
	superblockSize = 1024
)

// Features, from fs/ext4/ext4.h.
const (
	compatJournal  = 0x0004
	compatXattr    = 0x0008
	compatDirIndex = 0x0020

	incompatFiletype = 0x0002
	incompatMetaBG   = 0x0010
	incompatExtents  = 0x0040
	incompat64bit    = 0x0080

	roSparseSuper  = 0x0001
	roLargeFile    = 0x0002
	roHugeFile     = 0x0008
	roDirNlink     = 0x0020
	roExtraIsize   = 0x0040
	roMetadataCsum = 0x0400
)

// remountReadOnly is what the kernel does when it finds an error: what is there can still be read, and nothing gets worse.
const remountReadOnly = 2

// superblock describes the whole. No block is reserved for root: the runtime, which writes here, is another user.
func (m maker) superblock() []byte {
	b := make([]byte, superblockSize)
	now := uint32(m.Time.Unix())
	for at, v := range map[int]uint32{
		0x00: inodes, 0x04: groupBlocks, 0x0c: groupBlocks - used, 0x10: inodes - (firstFree - 1),
		0x18: 2, 0x1c: 2, // blocks and clusters of 1024 << 2 bytes
		0x20: 8 * block, 0x24: 8 * block, 0x28: inodes,
		0x30: now, 0x40: now, 0x108: now, // written, checked, made
		0x4c: 1, // with the fields that follow
		0x54: firstFree - 1,
		0x5c: compatJournal | compatXattr | compatDirIndex,
		0x60: incompatFiletype | incompatMetaBG | incompatExtents | incompat64bit,
		0x64: roSparseSuper | roLargeFile | roHugeFile | roDirNlink | roExtraIsize | roMetadataCsum,
		0xe0: inodeJournal,
		0xec: le.Uint32(m.UUID[0:]), 0xf0: le.Uint32(m.UUID[4:]), 0xf4: le.Uint32(m.UUID[8:]), 0xf8: le.Uint32(m.UUID[12:]), // seed of hashes
		0x100: 0x0c, // user_xattr, acl
		0x160: 1,    // hashes are of signed characters
	} {
		le.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint16{
		0x36: 0xffff, // no check after so many mounts
		0x38: 0xef53,
		0x3a: 1, // unmounted
		0x3c: remountReadOnly,
		0x58: inodeSize, 0xfe: descSize, 0x15c: 32, 0x15e: 32,
	} {
		le.PutUint16(b[at:], v)
	}
	b[0xfc] = 1  // half-MD4
	b[0xfd] = 1  // the journal's inode is copied below
	b[0x175] = 1 // CRC-32C
	copy(b[0x68:], m.UUID[:])
	copy(b[0x78:0x88], m.Label)
	log := inode{start: journal, blocks: journalBlocks}
	copy(b[0x10c:], log.extents())
	le.PutUint32(b[0x10c+16*4:], journalBlocks*block)
	le.PutUint32(b[0x3fc:], crc(^uint32(0), b[:0x3fc]))
	return b
}
