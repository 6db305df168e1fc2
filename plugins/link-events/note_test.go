package linkevents

import (
	"encoding/binary"
	"testing"
	"time"
)

// written is a struct note as the probe writes it.
func written(n note) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(n.at))
	b = binary.NativeEndian.AppendUint32(b, uint32(n.what))
	return binary.NativeEndian.AppendUint32(b, uint32(n.index))
}

func TestDecode(t *testing.T) {
	for _, n := range []note{{time.Second, subject{carrierUp, 2}}, {1, subject{linkChange, 1 << 30}}, {2, subject{what: routes}}} {
		if got, ok := decode(append(written(n), 0)); !ok || got != n {
			t.Errorf("decode = %+v, %v; want %+v", got, ok, n)
		}
	}
	whole := written(note{subject: subject{carrierUp, 2}})
	for what, b := range map[string][]byte{
		"nothing": nil, "one byte short": whole[:len(whole)-1], "nothing that we know": written(note{subject: subject{6, 2}}), "zero": written(note{}),
	} {
		if n, ok := decode(b); ok {
			t.Errorf("%s: decode = %+v; want nothing", what, n)
		}
	}
}

func TestAnEventHasTheTimeOfTheLikeliestRing(t *testing.T) {
	r := rung{}
	r.hear([]note{{at: 1 * time.Second, subject: subject{carrierDown, 2}}, {at: 2 * time.Second, subject: subject{linkChange, 2}}, {at: 3 * time.Second, subject: subject{what: routes}}}, 0, 3*time.Second)
	for _, tc := range []struct {
		about []subject
		want  time.Duration
	}{
		{[]subject{{carrierDown, 2}, {linkChange, 2}}, 1 * time.Second},
		{[]subject{{carrierUp, 2}, {linkChange, 2}}, 2 * time.Second},
		{[]subject{{carrierUp, 3}}, 3 * time.Second},
	} {
		if got := r.about(9*time.Second, tc.about...); got != tc.want {
			t.Errorf("about(%v) = %v; want %v", tc.about, got, tc.want)
		}
	}
	r.hear(nil, 3*time.Second, 4*time.Second)
	if got := r.about(4*time.Second, subject{carrierDown, 2}); got != 3*time.Second {
		t.Errorf("a ring of three seconds ago: %v; want the last one", got)
	}
	r.hear(nil, 3*time.Second, time.Minute)
	if got := r.about(time.Minute, subject{what: routes}); got != 3*time.Second {
		t.Errorf("a ring that no look has followed: %v; want its time", got)
	}
	r.hear(nil, time.Minute, 2*time.Minute)
	if got := r.about(2*time.Minute, subject{what: routes}); got != 2*time.Minute {
		t.Errorf("without a ring: %v; want now", got)
	}
}
