// Package verity makes and reads the hash tree by which Linux checks a device as it reads it
// (https://docs.kernel.org/admin-guide/device-mapper/verity.html). The image builder puts it behind the image of a root; PID 1 tells by it
// whether a partition holds the root that it was started for, and hands it to the kernel.
//
// It needs the standard library only, because PID 1 imports it. What it writes is what veritysetup writes and reads: version 1, SHA-256, blocks
// of 4096 bytes, the tree behind a superblock. The same data gives the same bytes.
package verity

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Block is the size of the blocks of data and of the tree.
const Block = 4096

// fanout is how many hashes are in a block of the tree.
const fanout = Block / sha256.Size

// Hash is that of the tree's root. Who has it from a source that he trusts can trust the data.
type Hash [sha256.Size]byte

// ParseHash reads 64 hexadecimal digits.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != hex.EncodedLen(len(h)) {
		return Hash{}, fmt.Errorf("%q is not a hash of %d hexadecimal digits", s, hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("%q is not a hash: %w", s, err)
	}
	return h, nil
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// superblock is what stands before the tree.
type superblock struct {
	Signature                    [8]byte
	Version, Type                uint32
	UUID                         [16]byte
	Algorithm                    [32]byte
	DataBlockSize, HashBlockSize uint32
	DataBlocks                   uint64
	SaltSize                     uint16
	_                            [6]byte
	Salt                         [256]byte
	_                            [168]byte
}

// known are the fields that are the same in every superblock that is written and read here.
func known() superblock {
	s := superblock{Version: 1, Type: 1, DataBlockSize: Block, HashBlockSize: Block, SaltSize: sha256.Size}
	copy(s.Signature[:], "verity")
	copy(s.Algorithm[:], "sha256")
	return s
}

// Make returns what belongs behind data of size bytes, superblock and tree, and the root's hash. The size must be that of whole blocks, two at
// the least. The salt is the hash of the data, and the UUID is made of the root's.
func Make(data io.ReaderAt, size int64) (area []byte, root Hash, err error) {
	if size%Block != 0 || size < 2*Block {
		return nil, Hash{}, fmt.Errorf("verity: %d bytes are not two or more blocks of %d", size, Block)
	}
	all := sha256.New()
	if n, err := io.Copy(all, io.NewSectionReader(data, 0, size)); err != nil || n != size {
		return nil, Hash{}, fmt.Errorf("verity: %d of %d bytes: %w", n, size, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	salt := all.Sum(nil)
	level, err := hashes(io.NewSectionReader(data, 0, size), salt)
	if err != nil {
		return nil, Hash{}, fmt.Errorf("verity: %w", err)
	}
	tree := level // the highest level comes first
	for len(level) > Block {
		if level, err = hashes(bytes.NewReader(level), salt); err != nil {
			return nil, Hash{}, fmt.Errorf("verity: %w", err)
		}
		tree = append(level, tree...)
	}
	root = hash(salt, level)

	s := known()
	s.DataBlocks = uint64(size / Block)
	copy(s.Salt[:], salt)
	copy(s.UUID[:], root[:])
	s.UUID[6], s.UUID[8] = s.UUID[6]&0x0f|0x40, s.UUID[8]&0x3f|0x80
	area = make([]byte, Block, Block+len(tree))
	if _, err := binary.Encode(area, binary.LittleEndian, s); err != nil {
		return nil, Hash{}, fmt.Errorf("verity: %w", err)
	}
	return append(area, tree...), root, nil
}

// hashes returns those of every block, in whole blocks.
func hashes(blocks io.Reader, salt []byte) ([]byte, error) {
	var all []byte
	block := make([]byte, Block)
	for {
		_, err := io.ReadFull(blocks, block)
		if errors.Is(err, io.EOF) {
			return append(all, make([]byte, (Block-len(all)%Block)%Block)...), nil
		}
		if err != nil {
			return nil, err
		}
		h := hash(salt, block)
		all = append(all, h[:]...)
	}
}

func hash(salt, block []byte) Hash {
	return sha256.Sum256(append(bytes.Clone(salt), block...))
}

// Tree is one that was found on a device, behind the data.
type Tree struct {
	Root Hash
	UUID [16]byte
	at   int64
	salt []byte
}

// Errors of Find, beside those of reading.
var (
	ErrNone  = errors.New("no hash tree")      // or one of a kind that Make does not make
	ErrOther = errors.New("another hash tree") // of other data
)

// Find reads the superblock behind data of at bytes. It fails unless there is one, for just that data, of a tree whose root has the wanted hash: the
// root alone is looked at, and everything below it when the kernel needs it.
func Find(device io.ReaderAt, at int64, wanted Hash) (*Tree, error) {
	if at%Block != 0 || at < 2*Block {
		return nil, fmt.Errorf("%w: not behind %d bytes", ErrNone, at)
	}
	area := make([]byte, 2*Block)
	if _, err := device.ReadAt(area, at); err != nil {
		return nil, fmt.Errorf("read at %d: %w", at, err)
	}
	var s superblock
	if _, err := binary.Decode(area, binary.LittleEndian, &s); err != nil {
		return nil, err
	}
	expected := known()
	expected.UUID, expected.DataBlocks, expected.Salt = s.UUID, uint64(at/Block), s.Salt
	if s != expected {
		return nil, fmt.Errorf("%w at %d", ErrNone, at)
	}
	salt := bytes.Clone(s.Salt[:s.SaltSize])
	if root := hash(salt, area[Block:]); root != wanted {
		return nil, fmt.Errorf("%w: the hash of its root is %s", ErrOther, root)
	}
	return &Tree{Root: wanted, UUID: s.UUID, at: at, salt: salt}, nil
}

// Size is how many bytes the data has.
func (t *Tree) Size() int64 { return t.at }

// Target returns the arguments of the kernel's target "verity", for data and tree on one device.
func (t *Tree) Target(device string) string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s %x", device, device, Block, Block, t.at/Block, t.at/Block+1, t.Root, t.salt)
}
