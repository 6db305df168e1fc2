package log

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// resealed returns data as a file of commit 1 with its checksums made right, as far as its frames can be followed, so that fuzzing gets behind
// them.
func resealed(data []byte) []byte {
	if len(data) < headerSize {
		return data
	}
	data = bytes.Clone(data)
	binary.LittleEndian.PutUint64(data[28:], 1)
	binary.LittleEndian.PutUint32(data[headerSize-4:], crc32.Checksum(data[:headerSize-4], castagnoli))
	seed := crc32.Checksum(data[:headerSize], castagnoli)
	for at := headerSize; at+frameHeaderSize < len(data); {
		f := data[at:]
		length := uint64(binary.LittleEndian.Uint32(f))
		if length == 0 || length > uint64(len(f)-frameHeaderSize) {
			break
		}
		f = f[:frameHeaderSize+length]
		seal(f, seed, binary.LittleEndian.Uint32(f[4:]), binary.LittleEndian.Uint64(f[8:]))
		at += len(f)
	}
	return data
}
