package powerevents

import (
	"encoding/binary"
	"testing"
	"time"
)

// written is a struct note as the probe writes it.
func written(n note) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(n.at))
	b = binary.NativeEndian.AppendUint32(b, uint32(n.what))
	b = binary.NativeEndian.AppendUint32(b, 0)
	name := make([]byte, 48)
	copy(name, n.name)
	return append(b, name...)
}

func TestDecode(t *testing.T) {
	for _, n := range []note{
		{at: time.Second, what: powerButton, name: "Power Button"}, {at: 1, what: supply}, {at: 2, what: tooHot, name: "acpitz"},
	} {
		if got, ok := decode(append(written(n), 0)); !ok || got != n {
			t.Errorf("decode = %+v, %v; want %+v", got, ok, n)
		}
	}
	whole := written(note{what: hot, name: "acpitz"})
	for what, b := range map[string][]byte{
		"nothing": nil, "one byte short": whole[:len(whole)-1], "nothing that we know": written(note{what: 8}), "zero": written(note{}),
	} {
		if n, ok := decode(b); ok {
			t.Errorf("%s: decode = %+v; want nothing", what, n)
		}
	}
	if n, _ := decode(written(note{what: hot, name: "\xff"})); n.name != "\uFFFD" {
		t.Errorf("decode = %q; want valid text", n.name)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(written(note{what: hot, name: "acpitz"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, ok := decode(b); ok && n.what == 0 {
			t.Errorf("decode = %+v", n)
		}
	})
}
