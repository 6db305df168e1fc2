package log

import (
	"fmt"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// What an fdatasync waits for is little when the blocks have been written before.
func TestARecordIsWrittenOverZeros(t *testing.T) {
	const writes, room = 2000, 1 << 20
	d := newTape(nil)
	s := mustOpen(t, d, Options{SegmentBytes: room})
	for i := range writes {
		if _, err := s.Create(t.Context(), resource("Things", fmt.Sprint(i), 200), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	syncs, fresh := 0, 0
	written, grown := map[*inode]int64{}, map[*inode]bool{}
	for _, a := range d.done {
		switch end := a.offset + int64(len(a.data)); {
		case a.what == "write" && end > room:
			t.Fatalf("%d bytes are written at %d of a segment of %d", len(a.data), a.offset, room)
		case a.what == "write" && end > written[a.inode]:
			written[a.inode], grown[a.inode] = end, true
		case a.what == "sync":
			syncs++
			if grown[a.inode] {
				fresh++
			}
			grown[a.inode] = false
		}
	}
	if syncs < writes || fresh > writes/100 {
		t.Errorf("%d of %d fdatasyncs are of blocks that were never written before; want less than one in a hundred", fresh, syncs)
	}
}
