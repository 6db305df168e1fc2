package log

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// A file begins with a header of 40 bytes, all numbers little-endian:
//
//	magic 8 | version 4 | epoch 8 | salt 8 | sequence 8 | CRC-32C of these 36 bytes 4
//
// and goes on with frames. The salt is random, and every CRC in a frame begins with that of the file's header: what was left on the disk
// by another file, or put into a resource by somebody, does not look like a frame.
const (
	headerSize   = 40
	version      = 1
	segmentMagic = "cosi-log"
	imageMagic   = "cosi-img"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a file. sequence is that of the first commit in a segment, and of the last one in a snapshot.
type header struct {
	magic    string
	epoch    memory.Epoch
	salt     [8]byte
	sequence uint64
}

func (h header) encode() []byte {
	b := append(make([]byte, 0, headerSize), h.magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = append(b, h.epoch[:]...)
	b = append(b, h.salt[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.sequence)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// seed is what the CRCs of the file's frames begin with.
func (h header) seed() uint32 { return crc32.Checksum(h.encode(), castagnoli) }

// readHeader reads the header of a file that should begin with magic. It fails with a DamagedError, or ErrVersion.
func readHeader(name, magic string, data []byte) (header, error) {
	if len(data) < headerSize {
		return header{}, &DamagedError{name, 0, fmt.Sprintf("%d bytes are no header", len(data))}
	}
	data = data[:headerSize]
	switch v := binary.LittleEndian.Uint32(data[8:]); {
	case string(data[:8]) != magic:
		return header{}, &DamagedError{name, 0, fmt.Sprintf("it begins with %q, not %q", data[:8], magic)}
	case crc32.Checksum(data[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(data[headerSize-4:]):
		return header{}, &DamagedError{name, 0, "the checksum of its header does not match"}
	case v != version:
		return header{}, fmt.Errorf("%s: %w: it is %d, and this one knows %d", name, ErrVersion, v, version)
	}
	h := header{magic: magic, epoch: memory.Epoch(data[12:20]), salt: [8]byte(data[20:28])}
	h.sequence = binary.LittleEndian.Uint64(data[28:])
	return h, nil
}

// A frame is a header of 24 bytes and its content:
//
//	length of the content 4 | count 4 | sequence 8 | CRC-32C of the content 4 | CRC-32C of these 20 bytes 4
//
// A length of zero does not occur: zeros after the last frame are room for the next.
const frameHeaderSize = 24

// frame is one frame of a file. In a segment it holds count changes, the first of them number sequence. In a snapshot count is the sort
// of block that it is, and blocks are numbered by sequence.
type frame struct {
	count    uint32
	sequence uint64
	content  []byte
}

// seal fills in the header of buffer, which is frameHeaderSize bytes and the content.
func seal(buffer []byte, seed, count uint32, sequence uint64) {
	binary.LittleEndian.PutUint32(buffer, uint32(len(buffer)-frameHeaderSize))
	binary.LittleEndian.PutUint32(buffer[4:], count)
	binary.LittleEndian.PutUint64(buffer[8:], sequence)
	binary.LittleEndian.PutUint32(buffer[16:], crc32.Update(seed, castagnoli, buffer[frameHeaderSize:]))
	binary.LittleEndian.PutUint32(buffer[20:], crc32.Update(seed, castagnoli, buffer[:20]))
}

// readFrame reads the frame at the beginning of data and returns what it says is wrong with it, or nothing.
func readFrame(data []byte, seed uint32) (f frame, wrong string) {
	length, wrong := frameLength(data, seed)
	if wrong != "" {
		return frame{}, wrong
	}
	f = frame{count: binary.LittleEndian.Uint32(data[4:]), sequence: binary.LittleEndian.Uint64(data[8:])}
	if length == 0 || length > len(data)-frameHeaderSize {
		return frame{}, "a record is cut short"
	}
	f.content = data[frameHeaderSize : frameHeaderSize+length]
	if crc32.Update(seed, castagnoli, f.content) != binary.LittleEndian.Uint32(data[16:]) {
		return frame{}, "the checksum of a record does not match"
	}
	return f, ""
}

// frameLength returns the length of the content of the frame whose header is at the beginning of data.
func frameLength(data []byte, seed uint32) (length int, wrong string) {
	if len(data) < frameHeaderSize {
		return 0, "the header of a record is cut short"
	}
	if crc32.Update(seed, castagnoli, data[:20]) != binary.LittleEndian.Uint32(data[20:]) {
		return 0, "the checksum of a record's header does not match"
	}
	return int(binary.LittleEndian.Uint32(data)), ""
}

// size is that of the whole frame.
func (f frame) size() int { return frameHeaderSize + len(f.content) }
