//go:build linux

// Package mapper has the requests to the kernel's device mapper as bytes (include/uapi/linux/dm-ioctl.h). PID 1 makes the device of a checked root
// with them, and the plugin volume those of encrypted volumes; each sends them itself. It needs the standard library and golang.org/x/sys only.
package mapper

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Control is the device that takes the requests.
const Control = "/dev/mapper/control"

// Sector is the unit of lengths.
const Sector = 512

// Target is how a device of one piece shows what is below it.
type Target struct {
	Kind      string // "verity", "crypt"
	Sectors   int64
	Arguments string
}

// Device is one to make.
type Device struct {
	Name string
	// UUID is as cryptsetup makes it ("CRYPT-LUKS2-…"), by which other programs know the kind of the device.
	UUID     string
	ReadOnly bool
	Target   Target
}

// Request is a number of ioctl(2) and its argument, in which the kernel answers.
type Request struct {
	Name   string // for errors
	Number uintptr
	Data   []byte
}

// Make are the requests that make the device, one after the other.
func (d Device) Make() []Request {
	return []Request{
		{"create", unix.DM_DEV_CREATE, d.request(d.UUID, nil)},
		{"load", unix.DM_TABLE_LOAD, d.request("", d.Target.encode())}, // a name or a UUID: both are refused
		{"resume", unix.DM_DEV_SUSPEND, d.request("", nil)},
	}
}

// Status asks for what Node and ReadOnly say.
func (d Device) Status() Request { return Request{"status", unix.DM_DEV_STATUS, d.request("", nil)} }

// Remove asks for the device's end. It fails with EBUSY while somebody uses it.
func (d Device) Remove() Request { return Request{"remove", unix.DM_DEV_REMOVE, d.request("", nil)} }

func (d Device) request(uuid string, targets []byte) []byte {
	h := unix.DmIoctl{Version: [3]uint32{4, 0, 0}, Data_size: uint32(unix.SizeofDmIoctl + len(targets)), Data_start: unix.SizeofDmIoctl, Flags: unix.DM_SECURE_DATA_FLAG}
	if d.ReadOnly {
		h.Flags |= unix.DM_READONLY_FLAG
	}
	if len(targets) > 0 {
		h.Target_count = 1
	}
	copy(h.Name[:], d.Name)
	copy(h.Uuid[:], uuid)
	b := make([]byte, unix.SizeofDmIoctl, unix.SizeofDmIoctl+len(targets))
	binary.Encode(b, binary.NativeEndian, h) // a fixed size, of which there is room
	return append(b, targets...)
}

// encode encodes the only target of a device, with the zero that ends its arguments, in whole words.
func (t Target) encode() []byte {
	size := (unix.SizeofDmTargetSpec + len(t.Arguments) + 1 + 7) &^ 7
	spec := unix.DmTargetSpec{Length: uint64(t.Sectors), Next: uint32(size)}
	copy(spec.Target_type[:], t.Kind)
	b := make([]byte, size)
	binary.Encode(b, binary.NativeEndian, spec) // a fixed size, of which there is room
	copy(b[unix.SizeofDmTargetSpec:], t.Arguments)
	return b
}

// Node is the node that the kernel has made for the device, by the answer to Status, and whether nothing can be written to it.
func (r Request) Node() (path string, readOnly bool, err error) {
	var h unix.DmIoctl
	if _, err := binary.Decode(r.Data, binary.NativeEndian, &h); err != nil {
		return "", false, err
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(h.Dev)), h.Flags&unix.DM_READONLY_FLAG != 0, nil
}
