package powerevents

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// event is a struct input_event, of one second and 5 µs after the boot.
func event(kind, code uint16, value uint32) []byte {
	b := binary.NativeEndian.AppendUint64(nil, 1)
	b = binary.NativeEndian.AppendUint64(b, 5)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, value)
}

func TestFromEvdev(t *testing.T) {
	press := event(evKey, keyPower, 1)
	for name, test := range map[string]struct {
		data    []byte
		want    []what
		dropped bool
	}{
		"nothing":         {nil, nil, false},
		"press":           {press, []what{powerButton}, false},
		"two presses":     {append(event(evKey, keyPower2, 1), press...), []what{powerButton, powerButton}, false},
		"sleep":           {event(evKey, keySleep, 1), []what{sleepButton}, false},
		"lid":             {append(event(evSw, swLid, 1), event(evSw, swLid, 0)...), []what{lidClosed, lidOpened}, false},
		"release":         {event(evKey, keyPower, 0), nil, false},
		"repeat":          {event(evKey, keyPower, 2), nil, false},
		"another key":     {event(evKey, 30, 1), nil, false},
		"another switch":  {event(evSw, 2, 1), nil, false},
		"another kind":    {event(0x02, keyPower, 1), nil, false},
		"after sync":      {append(event(evSyn, 0, 0), press...), []what{powerButton}, false},
		"after a loss":    {append(event(evSyn, synDropped, 0), press...), []what{powerButton}, true},
		"cut short":       {press[:eventSize-1], nil, false},
		"cut after a one": {append(append([]byte{}, press...), press[:5]...), []what{powerButton}, false},
	} {
		notes, dropped := fromEvdev("Power Button", test.data)
		var got []what
		for _, n := range notes {
			if got = append(got, n.what); n.at != time.Second+5*time.Microsecond || n.name != "Power Button" {
				t.Errorf("%s: %+v", name, n)
			}
		}
		if !slices.Equal(got, test.want) || dropped != test.dropped {
			t.Errorf("%s: fromEvdev = %v, %v; want %v, %v", name, got, dropped, test.want, test.dropped)
		}
	}
}

// The numbers are those that C's EVIOCGNAME(256), EVIOCGBIT(EV_KEY, 96) and EVIOCSCLOCKID have.
func TestIoctlNumbers(t *testing.T) {
	if got := eviocgname(256); got != 0x81004506 {
		t.Errorf("eviocgname(256) = %#x; want 0x81004506", got)
	}
	if got := eviocgbit(evKey, 96); got != 0x80604521 {
		t.Errorf("eviocgbit(EV_KEY, 96) = %#x; want 0x80604521", got)
	}
	if eviocsclockid != 0x400445a0 {
		t.Errorf("eviocsclockid = %#x; want 0x400445a0", eviocsclockid)
	}
}

func TestHasBit(t *testing.T) {
	var bits [keyMax/8 + 1]byte
	bits[14] = 1 << 4 // 14*8+4 = 116
	if !hasBit(bits[:], keyPower) || hasBit(bits[:], keyPower+1) || hasBit(bits[:], keyPower2) || hasBit(bits[:], keyMax) {
		t.Error("only the bit of KEY_POWER is set")
	}
}

// FuzzFromEvdev: a device cannot claim more than it sent.
func FuzzFromEvdev(f *testing.F) {
	f.Add(event(evKey, keyPower, 1))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, _ := fromEvdev("x", data); len(got) > len(data)/eventSize {
			t.Errorf("%d notes in %d bytes", len(got), len(data))
		}
	})
}
