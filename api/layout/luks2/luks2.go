// Package luks2 makes, reads and changes the header of an encrypted volume in the format LUKS2, version 2.0.1.0 of
// https://gitlab.com/cryptsetup/LUKS2-docs: what it writes cryptsetup opens, and every Linux has that. The programs that seal volumes to a TPM
// call it; the kernel does the encryption of the data.
//
// A header is there twice, each copy with a checksum and the number of its writing. What is read is the newest that is whole, so that a change
// that was cut off by a loss of power has happened or not. It comes from a disk that anybody may have written to: all of it is checked, and how much
// work it can ask for is bounded.
//
// Keys are derived by PBKDF2 with few iterations, because every passphrase that is put into a header here is random and 256 bits long: more
// iterations make guessing harder, and there is nothing to guess. Keyslots of other kinds (Argon2, which cryptsetup makes for people's passphrases)
// are left as they are and cannot be opened here.
package luks2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// DataOffset is where the data begins in a volume that is made here: behind room for the headers and 15 keyslots.
	DataOffset = 4 << 20
	// KeySize is that of a volume's key: two of AES-256, for XTS.
	KeySize = 64
	// Sector is the size of the blocks that are encrypted each by itself. A disk has sectors of that size or smaller ones.
	Sector = 4096
	// Cipher is the only one.
	Cipher = "aes-xts-plain64"

	headerSize = 16 << 10 // of each copy: what cryptsetup makes
	binarySize = 4 << 10  // of the part of it before the JSON
	areasAt    = 2 * headerSize
	// largest is the size of the largest header that the format knows.
	largest = 4 << 20
)

// Magic begins every volume.
const Magic = "LUKS\xba\xbe"

const magicSecond = "SKUL\xba\xbe"

// ErrPassphrase says that a passphrase opens no keyslot.
var ErrPassphrase = errors.New("no keyslot is opened by it")

// Device is what a volume is on.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when everything is on the medium.
	Sync() error
}

// Header is that of a volume.
type Header struct {
	fixed fixed
	meta  metadata
}

// fixed is what stands before the JSON, big-endian.
type fixed struct {
	Magic     [6]byte
	Version   uint16
	Size      uint64 // with the JSON
	Sequence  uint64
	Label     [48]byte
	Algorithm [32]byte
	Salt      [64]byte
	UUID      [40]byte
	Subsystem [48]byte
	Offset    uint64
	_         [184]byte
	Checksum  [64]byte
	_         [7 * 512]byte
}

// checksumAt is where Checksum is in it.
const checksumAt = 448

// New returns the header of a new volume and the key of its data. It has no keyslot yet, and nothing is written.
func New(uuid, label string) (*Header, []byte, error) {
	h := &Header{fixed: fixed{Version: 2, Size: headerSize}, meta: newMetadata()}
	if len(uuid) >= len(h.fixed.UUID) || len(label) >= len(h.fixed.Label) {
		return nil, nil, fmt.Errorf("uuid %q or label %q is too long", uuid, label)
	}
	copy(h.fixed.UUID[:], uuid)
	copy(h.fixed.Label[:], label)
	copy(h.fixed.Algorithm[:], "sha256")
	key := random(KeySize)
	return h, key, h.meta.digest(key)
}

// UUID is the volume's.
func (h *Header) UUID() string { return text(h.fixed.UUID[:]) }

// Read returns the newest header that is whole. It fails if there is none, or if it asks for what this package does not know.
func Read(r io.ReaderAt) (*Header, error) {
	first, err := readCopy(r, 0, Magic)
	// The second copy is where the first ends. Without a first, it is looked for at every place that the format allows.
	places := []int64{}
	if err == nil {
		places = append(places, int64(first.fixed.Size))
	} else {
		for at := int64(headerSize); at <= largest; at *= 2 {
			places = append(places, at)
		}
	}
	newest := first
	for _, at := range places {
		second, otherErr := readCopy(r, at, magicSecond)
		if otherErr != nil {
			continue
		}
		if newest == nil || second.fixed.Sequence > newest.fixed.Sequence {
			newest = second
		}
		break
	}
	if newest == nil {
		return nil, err
	}
	return newest, newest.meta.check(int64(newest.fixed.Size))
}

// readCopy reads the copy of the header at a place.
func readCopy(r io.ReaderAt, at int64, magic string) (*Header, error) {
	head := make([]byte, binarySize)
	if _, err := r.ReadAt(head, at); err != nil {
		return nil, fmt.Errorf("LUKS2 header: %w", err)
	}
	h := &Header{}
	if _, err := binary.Decode(head, binary.BigEndian, &h.fixed); err != nil {
		return nil, err
	}
	f := &h.fixed
	switch {
	case string(f.Magic[:]) != magic:
		return nil, errors.New("no LUKS2 header")
	case f.Version != 2:
		return nil, fmt.Errorf("LUKS header of version %d: want 2", f.Version)
	case f.Size < headerSize || f.Size > largest || f.Size&(f.Size-1) != 0 || f.Offset != uint64(at):
		return nil, fmt.Errorf("LUKS2 header: %d bytes at %d make no sense", f.Size, f.Offset)
	case text(f.Algorithm[:]) != "sha256":
		return nil, fmt.Errorf("LUKS2 header: checksum %q: want sha256", text(f.Algorithm[:]))
	}
	area := make([]byte, f.Size-binarySize)
	if _, err := r.ReadAt(area, at+binarySize); err != nil {
		return nil, fmt.Errorf("LUKS2 header: %w", err)
	}
	if sum := checksum(head, area); !bytes.Equal(sum[:], f.Checksum[:sha256.Size]) {
		return nil, errors.New("LUKS2 header: the checksum is wrong")
	}
	if err := json.Unmarshal(bytes.TrimRight(area, "\x00"), &h.meta); err != nil {
		return nil, fmt.Errorf("LUKS2 header: %w", err)
	}
	return h, nil
}

// checksum is over a header, in which that of it counts as zero.
func checksum(head, area []byte) [sha256.Size]byte {
	all := bytes.Clone(head)
	clear(all[checksumAt : checksumAt+64])
	return sha256.Sum256(append(all, area...))
}

// Write writes both copies, one after the other.
func (h *Header) Write(d Device) error {
	area, err := json.Marshal(h.meta)
	if err != nil {
		return err
	}
	size := int64(h.fixed.Size)
	if int64(len(area)) >= size-binarySize {
		return fmt.Errorf("LUKS2 header: %d bytes are too many for it", len(area))
	}
	area = append(area, make([]byte, size-binarySize-int64(len(area)))...)
	h.fixed.Sequence++
	for i, magic := range []string{Magic, magicSecond} {
		f := h.fixed
		copy(f.Magic[:], magic)
		f.Offset = uint64(int64(i) * size)
		copy(f.Salt[:], random(len(f.Salt)))
		f.Checksum = [64]byte{}
		head, err := binary.Append(nil, binary.BigEndian, f)
		if err != nil {
			return err
		}
		sum := checksum(head, area)
		copy(head[checksumAt:], sum[:])
		if _, err := d.WriteAt(append(head, area...), int64(f.Offset)); err != nil {
			return fmt.Errorf("LUKS2 header: %w", err)
		}
		if err := d.Sync(); err != nil {
			return fmt.Errorf("LUKS2 header: %w", err)
		}
	}
	return nil
}

// Target is how the kernel decrypts the volume on a device of size bytes: the size of what it shows in sectors of 512 bytes, and the arguments of
// device mapper's target "crypt". The key is in them.
func (h *Header) Target(device string, size int64, key []byte) (sectors int64, arguments string, err error) {
	s, err := h.meta.segment()
	if err != nil {
		return 0, "", err
	}
	length := size - int64(s.Offset)
	if s.Size != "dynamic" {
		return 0, "", fmt.Errorf("LUKS2 header: a segment of size %q: want dynamic", s.Size)
	}
	if length = length / s.SectorSize * s.SectorSize; length <= 0 {
		return 0, "", fmt.Errorf("a device of %d bytes is too small for the volume", size)
	}
	arguments = fmt.Sprintf("%s %x %d %s %d", s.Encryption, key, s.IVTweak, device, int64(s.Offset)/512)
	if s.SectorSize != 512 {
		return length / 512, fmt.Sprintf("%s 2 allow_discards sector_size:%d", arguments, s.SectorSize), nil
	}
	return length / 512, arguments + " 1 allow_discards", nil
}

func text(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: see its documentation
	return b
}
