package memory

import (
	"encoding/binary"
	"fmt"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// EpochSize is the length of a store's epoch in bytes.
const EpochSize = 8

// Epoch tells one life of a store from another: positions of one mean nothing in the other.
type Epoch [EpochSize]byte

// bookmark encodes a position: the epoch and, big-endian, the sequence of the last commit that the watcher has seen.
func (e Epoch) bookmark(sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, EpochSize+8), e[:]...), sequence)
}

// sequence decodes a bookmark of this epoch, or fails with ErrBookmark.
func (e Epoch) sequence(bookmark []byte) (uint64, error) {
	if len(bookmark) != EpochSize+8 {
		return 0, fmt.Errorf("%w: %d bytes are not a bookmark", state.ErrBookmark, len(bookmark))
	}
	if Epoch(bookmark[:EpochSize]) != e {
		return 0, fmt.Errorf("%w: it is from another life of the store", state.ErrBookmark)
	}
	return binary.BigEndian.Uint64(bookmark[EpochSize:]), nil
}
