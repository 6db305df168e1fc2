package luks2

import (
	"crypto/subtle"
	"encoding/binary"
	"slices"
)

// split spreads a key over many stripes, all of which are needed for it: once a single one is overwritten, it is gone, whatever a disk keeps of the
// others (LUKS On-Disk Format Specification 1.2.3, 2.4).
type split struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

// split returns the stripes, one behind the other: random ones, and a last by which they give the key.
func (f split) split(key []byte) ([]byte, error) {
	material := random(len(key) * (f.Stripes - 1))
	state, err := f.mix(material, len(key))
	if err != nil {
		return nil, err
	}
	subtle.XORBytes(state, state, key)
	return append(material, state...), nil
}

// merge returns the key.
func (f split) merge(material []byte, size int) ([]byte, error) {
	last := material[len(material)-size:]
	key, err := f.mix(material[:len(material)-size], size)
	if err != nil {
		return nil, err
	}
	subtle.XORBytes(key, key, last)
	return key, nil
}

// mix is what stripes of size bytes give.
func (f split) mix(material []byte, size int) ([]byte, error) {
	newHash, err := hashOf(f.Hash)
	if err != nil {
		return nil, err
	}
	state := make([]byte, size)
	for stripe := range slices.Chunk(material, size) {
		subtle.XORBytes(state, state, stripe)
		// Each piece of the length of a hash is replaced by the hash of its number and itself.
		h := newHash()
		number := uint32(0)
		for piece := range slices.Chunk(state, h.Size()) {
			h.Reset()
			h.Write(binary.BigEndian.AppendUint32(nil, number))
			h.Write(piece)
			copy(piece, h.Sum(nil))
			number++
		}
	}
	return state, nil
}
