//go:build linux

package mapper

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// The kernel reads a target as include/uapi/linux/dm-ioctl.h says.
func TestTarget(t *testing.T) {
	b := Target{"verity", 32, "1 a b"}.encode()
	if len(b) != unix.SizeofDmTargetSpec+8 || binary.NativeEndian.Uint64(b[8:]) != 32 || binary.NativeEndian.Uint32(b[20:]) != uint32(len(b)) ||
		string(b[24:31]) != "verity\x00" || string(b[40:]) != "1 a b\x00\x00\x00" {
		t.Errorf("target = %q", b)
	}
	if b := (Target{"verity", 32, "12345678"}).encode(); b[len(b)-1] != 0 || len(b)%8 != 0 {
		t.Errorf("target = %q; want a zero at its end, in whole words", b)
	}
}

func TestRequests(t *testing.T) {
	d := Device{Name: "root", UUID: "CRYPT-VERITY-1-root", ReadOnly: true, Target: Target{"verity", 32, "1"}}
	for i, r := range d.Make() {
		var h unix.DmIoctl
		if _, err := binary.Decode(r.Data, binary.NativeEndian, &h); err != nil {
			t.Fatal(err)
		}
		uuid := unix.ByteSliceToString(h.Uuid[:])
		if int(h.Data_size) != len(r.Data) || unix.ByteSliceToString(h.Name[:]) != "root" || (uuid != "") != (i == 0) || (h.Target_count == 1) != (i == 1) || h.Flags&unix.DM_READONLY_FLAG == 0 {
			t.Errorf("%s: %+v of %d bytes", r.Name, h, len(r.Data))
		}
	}
	answer := d.Status()
	if path, readOnly, err := answer.Node(); path != "/dev/dm-0" || !readOnly || err != nil {
		t.Errorf("Node = %q, %v, %v", path, readOnly, err)
	}
}
