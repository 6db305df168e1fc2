package memory

import (
	"slices"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// sequences returns those of all records that h holds.
func sequences(h *history) []uint64 {
	var all []uint64
	for _, r := range h.copy(h.first, int(h.end-h.first)) {
		all = append(all, r.sequence)
	}
	return all
}

func filled(l Limits, weight int, sequences ...uint64) *history {
	h := &history{limits: l}
	for _, s := range sequences {
		h.append(&record{sequence: s, weight: weight, event: &state.Event{}})
	}
	return h
}

func TestHistoryKeepsTheLastWithinItsLimits(t *testing.T) {
	many := make([]uint64, 100)
	for i := range many {
		many[i] = uint64(i + 1)
	}
	for name, c := range map[string]struct {
		limits Limits
		want   []uint64
	}{
		"events":              {Limits{Events: 3, Bytes: 1 << 20}, []uint64{98, 99, 100}},
		"bytes":               {Limits{Events: 1000, Bytes: 25}, []uint64{99, 100}},
		"newest, however big": {Limits{Events: 1000, Bytes: 1}, []uint64{100}},
		"all":                 {Limits{Events: 1000, Bytes: 1 << 20}, many},
	} {
		h := filled(c.limits, 10, many...)
		if got := sequences(h); !slices.Equal(got, c.want) {
			t.Errorf("%s: history %v; want %v", name, got, c.want)
		}
		if got, want := h.evicted, c.want[0]-1; got != want {
			t.Errorf("%s: evicted %d; want %d", name, got, want)
		}
		if got, want := h.weight, 10*len(c.want); got != want {
			t.Errorf("%s: weight %d; want %d", name, got, want)
		}
		held := 0
		for _, r := range h.ring {
			if r != nil {
				held++
			}
		}
		if held != len(c.want) {
			t.Errorf("%s: the ring holds on to %d records; want %d", name, held, len(c.want))
		}
	}
}

func TestHistoryFindsThePositionAfterASequence(t *testing.T) {
	h := filled(Limits{Events: 3, Bytes: 1 << 20}, 1, 2, 5, 9, 12, 20) // holds 9, 12, 20; has dropped 5
	for _, c := range []struct {
		sequence uint64
		want     []uint64
		ok       bool
	}{
		{0, nil, false}, {4, nil, false},
		{5, []uint64{9, 12, 20}, true}, {8, []uint64{9, 12, 20}, true},
		{9, []uint64{12, 20}, true}, {15, []uint64{20}, true}, {20, nil, true}, {99, nil, true},
	} {
		position, ok := h.after(c.sequence)
		if ok != c.ok {
			t.Errorf("after(%d) ok = %v; want %v", c.sequence, ok, c.ok)
			continue
		}
		if !ok {
			continue
		}
		var got []uint64
		for _, r := range h.copy(position, 10) {
			got = append(got, r.sequence)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("after(%d) = %v; want %v", c.sequence, got, c.want)
		}
	}
}

func TestAnEmptyHistoryStartsAtTheBeginning(t *testing.T) {
	h := &history{limits: DefaultLimits}
	if position, ok := h.after(0); position != 0 || !ok || h.last() != 0 {
		t.Errorf("after(0) = %d, %v, last() = %d; want 0, true, 0", position, ok, h.last())
	}
}

// FuzzBookmark: any bytes are the position that they encode or ErrBookmark.
func FuzzBookmark(f *testing.F) {
	epoch := Epoch{1, 2, 3, 4, 5, 6, 7, 8}
	f.Add(epoch.bookmark(7))
	f.Add([]byte{})
	f.Add(Epoch{}.bookmark(7))
	f.Add(append(epoch.bookmark(1), 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		sequence, err := epoch.sequence(data)
		if err != nil {
			if state.SentinelOf(err) != state.ErrBookmark {
				t.Fatalf("sequence(%x) = %v; want ErrBookmark", data, err)
			}
			return
		}
		if got := epoch.bookmark(sequence); !slices.Equal(got, data) {
			t.Fatalf("bookmark(%d) = %x; want %x", sequence, got, data)
		}
	})
}
