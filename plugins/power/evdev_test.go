package power

import (
	"encoding/binary"
	"testing"
)

// event is a struct input_event.
func event(kind, code uint16, value uint32) []byte {
	b := make([]byte, 16, eventSize)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, value)
}

func TestPowerPresses(t *testing.T) {
	press := event(evKey, keyPower, 1)
	for name, test := range map[string]struct {
		data []byte
		want int
	}{
		"nothing":         {nil, 0},
		"press":           {press, 1},
		"two presses":     {append(event(evKey, keyPower2, 1), press...), 2},
		"release":         {event(evKey, keyPower, 0), 0},
		"repeat":          {event(evKey, keyPower, 2), 0},
		"another key":     {event(evKey, 30, 1), 0},
		"another kind":    {event(0x02, keyPower, 1), 0},
		"after sync":      {append(event(0, 0, 0), press...), 1},
		"cut short":       {press[:eventSize-1], 0},
		"cut after a one": {append(append([]byte{}, press...), press[:5]...), 1},
	} {
		if got := powerPresses(test.data); got != test.want {
			t.Errorf("%s: powerPresses = %d; want %d", name, got, test.want)
		}
	}
}

// The numbers are those that C's EVIOCGNAME(256) and EVIOCGBIT(EV_KEY, 96) have.
func TestIoctlNumbers(t *testing.T) {
	if got := eviocgname(256); got != 0x81004506 {
		t.Errorf("eviocgname(256) = %#x; want 0x81004506", got)
	}
	if got := eviocgbit(evKey, 96); got != 0x80604521 {
		t.Errorf("eviocgbit(EV_KEY, 96) = %#x; want 0x80604521", got)
	}
}

func TestHasBit(t *testing.T) {
	var bits [keyMax/8 + 1]byte
	bits[14] = 1 << 4 // 14*8+4 = 116
	if !hasBit(bits[:], keyPower) || hasBit(bits[:], keyPower+1) || hasBit(bits[:], keyPower2) || hasBit(bits[:], keyMax) {
		t.Error("only the bit of KEY_POWER is set")
	}
}

// FuzzPowerPresses: a device cannot claim more presses than it sent events.
func FuzzPowerPresses(f *testing.F) {
	f.Add(event(evKey, keyPower, 1))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := powerPresses(data); got < 0 || got > len(data)/eventSize {
			t.Errorf("%d presses in %d bytes", got, len(data))
		}
	})
}
