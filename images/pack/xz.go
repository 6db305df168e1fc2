package pack

import (
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// dictionary is how far back xz looks for what it has seen. For the base image 256 KiB make 0.3 % less, in 5.1 s of a processor in place of 4.8;
// 4 MiB, a whole piece, take 12.5 s and make no less.
const dictionary = 64 << 10

// worthwhile is the part of a piece that has to be gained, by a quick guess, for xz to be tried on it.
const worthwhile = 64

// newXZ returns a compressor. What a quick guess finds not worth it is stored: the library tries to compress all that it is given, and takes longest over
// what cannot be.
func newXZ() (func(plain []byte) ([]byte, error), error) {
	guess, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	try := stream(func(w io.Writer) (io.WriteCloser, error) { return xz.WriterConfig{DictCap: dictionary}.NewWriter(w) })
	var guessed []byte
	return func(plain []byte) ([]byte, error) {
		if guessed = guess.EncodeAll(plain, guessed[:0]); len(guessed) > len(plain)-len(plain)/worthwhile {
			return stored(plain), nil
		}
		return try(plain)
	}, err
}

// Of an .xz file ("The .xz File Format", 1.2.1).
const (
	lzma2         = 0x21 // the filter's ID, 5.3.1
	crc64Check    = 4    // the kind of check, 2.1.1.2
	chunk         = 64 << 10
	resetStored   = 1 // an LZMA2 chunk that is not compressed, and begins with an empty dictionary
	nextStored    = 2 // one that does not begin so
	endOfChunks   = 0
	blockHeader   = 12
	checkSize     = 8
	magic, ending = "\xfd7zXZ\x00", "YZ"
)

var crc64Table = crc64.MakeTable(crc64.ECMA)

// stored is an .xz file of one block, which holds plain as it is.
func stored(plain []byte) []byte {
	le := binary.LittleEndian
	sum := func(b, of []byte) []byte { return le.AppendUint32(b, crc32.ChecksumIEEE(of)) }
	flags := []byte{0, crc64Check}
	out := make([]byte, 0, len(plain)+len(plain)/chunk*3+128)
	out = sum(append(append(out, magic...), flags...), flags)
	// The block: its size in words, but one; one filter, whose property is the dictionary's size, 2 << (p/2 + 11).
	header := []byte{blockHeader/4 - 1, 0, lzma2, 1, 8, 0, 0, 0}
	begin := len(out)
	out = sum(append(out, header...), header)
	kind := byte(resetStored)
	for at := 0; at < len(plain); at += chunk {
		data := plain[at:min(at+chunk, len(plain))]
		out = append(binary.BigEndian.AppendUint16(append(out, kind), uint16(len(data)-1)), data...)
		kind = nextStored
	}
	out = append(out, endOfChunks)
	unpadded := len(out) - begin + checkSize
	out = le.AppendUint64(pad(out), crc64.Checksum(plain, crc64Table))
	index := binary.AppendUvarint([]byte{0, 1}, uint64(unpadded)) // one block
	index = pad(binary.AppendUvarint(index, uint64(len(plain))))
	index = sum(index, index)
	out = append(out, index...)
	footer := append(le.AppendUint32(nil, uint32(len(index)/4-1)), flags...)
	return append(append(sum(out, footer), footer...), ending...)
}

// pad makes a length a multiple of 4, as that of all parts of such a file is.
func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
