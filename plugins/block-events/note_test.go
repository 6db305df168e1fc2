package blockevents

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/uevent"
)

// written is a struct note as the probe writes it.
func written(n note) []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(n.at))
	b = binary.NativeEndian.AppendUint64(b, n.sector)
	partition := uint32(0)
	if n.partition {
		partition = 1
	}
	for _, word := range []uint32{uint32(n.what), n.device.major<<20 | n.device.minor, uint32(n.status), partition} {
		b = binary.NativeEndian.AppendUint32(b, word)
	}
	name := make([]byte, 32)
	copy(name, n.name)
	return append(b, name...)
}

func TestDecode(t *testing.T) {
	for _, n := range []note{
		{at: time.Second, what: added, device: device{254, 16}, name: "vdb"},
		{at: 1, what: removed, device: device{259, 1<<20 - 1}, name: "nvme0n1p2", partition: true},
		{at: 2, what: ioError, device: device{8, 0}, name: "sda", sector: 1 << 40, status: 7},
		{at: 3, what: again, device: device{8, 0}, name: "sda"},
	} {
		if got, ok := decode(append(written(n), 0)); !ok || got != n {
			t.Errorf("decode = %+v, %v; want %+v", got, ok, n)
		}
	}
	whole := written(note{what: added, name: "vdb"})
	for what, b := range map[string][]byte{
		"nothing": nil, "one byte short": whole[:len(whole)-1],
		"no name": written(note{what: added}), "nothing that we know": written(note{what: 9, name: "vdb"}), "zero": written(note{name: "vdb"}),
	} {
		if n, ok := decode(b); ok {
			t.Errorf("%s: decode = %+v", what, n)
		}
	}
}

// FuzzDecode: what is read is what was written.
func FuzzDecode(f *testing.F) {
	f.Add(written(note{at: 5, what: added, device: device{254, 16}, name: "vdb"}))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := decode(b)
		if !ok {
			return
		}
		if twice, ok := decode(written(n)); !ok || twice != n || bytes.IndexByte([]byte(n.name), 0) >= 0 {
			t.Errorf("decode(%x) = %+v; written and read again %+v, %v", b, n, twice, ok)
		}
	})
}

func TestMessages(t *testing.T) {
	for want, n := range map[string]note{
		"":                                 {what: added},
		"critical medium error, sector 80": {what: ioError, status: 7, sector: 80},
		"error 99, sector 0":               {what: ioError, status: 99},
	} {
		if got := n.message(); got != want {
			t.Errorf("message of %+v = %q; want %q", n, got, want)
		}
	}
}

func TestFromUevent(t *testing.T) {
	variables := func(more ...string) map[string]string {
		v := map[string]string{"SUBSYSTEM": "block", "DEVNAME": "sda", "DEVTYPE": "disk", "MAJOR": "8", "MINOR": "0"}
		for i := 0; i < len(more); i += 2 {
			v[more[i]] = more[i+1]
		}
		return v
	}
	for _, tc := range []struct {
		name  string
		event uevent.Event
		want  what
	}{
		{"a disk comes", uevent.Event{Action: "add", Variables: variables()}, added},
		{"a disk goes", uevent.Event{Action: "remove", Variables: variables()}, removed},
		{"another size", uevent.Event{Action: "change", Variables: variables("RESIZE", "1")}, resized},
		{"read-only", uevent.Event{Action: "change", Variables: variables("DISK_RO", "1")}, readOnly},
		{"another medium", uevent.Event{Action: "change", Variables: variables("DISK_MEDIA_CHANGE", "1")}, changed},
		{"somebody asks for a look", uevent.Event{Action: "change", Variables: variables("SYNTH_UUID", "0")}, again},
		{"a driver is bound", uevent.Event{Action: "bind", Variables: variables()}, 0},
		{"no block device", uevent.Event{Action: "add", Variables: variables("SUBSYSTEM", "net")}, 0},
		{"no number", uevent.Event{Action: "add", Variables: variables("MINOR", "x")}, 0},
		{"no name", uevent.Event{Action: "add", Variables: variables("DEVNAME", "")}, 0},
	} {
		n, ok := fromUevent(tc.event, 7)
		if ok != (tc.want != 0) || n.what != tc.want && ok {
			t.Errorf("%s: fromUevent = %+v, %v; want %v", tc.name, n, ok, tc.want)
		}
		if ok && (n.device != device{8, 0} || n.name != "sda" || n.partition || n.at != 7) {
			t.Errorf("%s: fromUevent = %+v", tc.name, n)
		}
	}
	if n, ok := fromUevent(uevent.Event{Action: "add", Variables: variables("DEVTYPE", "partition", "DEVNAME", "sda1", "MINOR", "1")}, 7); !ok || !n.partition || n.device.minor != 1 {
		t.Errorf("a partition: %+v, %v", n, ok)
	}
}

func TestADeviceGoesOnce(t *testing.T) {
	gone := departed{}
	first, second := device{253, 0}, device{253, 1}
	for i, tc := range []struct {
		device     device
		what, want what
	}{
		{first, added, added}, {second, removed, removed}, {first, removed, removed}, {first, removed, again}, {first, changed, changed}, {first, removed, again},
		{second, removed, again}, {first, added, added}, {first, removed, removed},
	} {
		if got := gone.once(note{at: 7, what: tc.what, device: tc.device, name: "dm-0"}); (got != note{at: 7, what: tc.want, device: tc.device, name: "dm-0"}) {
			t.Errorf("%d: once(%v of %v) = %+v; want %v", i, tc.what, tc.device, got, tc.want)
		}
	}
}
