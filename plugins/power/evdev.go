package power

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/input-event-codes.h.
const (
	evKey     = 0x01
	keyPower  = 116
	keyPower2 = 0x164
	keyMax    = 0x2ff
)

// eventSize is the size of struct input_event on 64-bit machines: two 64-bit words of time, then type, code and value.
const eventSize = 24

// ioctl numbers of linux/input.h: _IOC(_IOC_READ, 'E', number, size).
func eviocgname(size int) uintptr        { return ioctlRead(0x06, size) }
func eviocgbit(event, size int) uintptr  { return ioctlRead(0x20+event, size) }
func ioctlRead(number, size int) uintptr { return uintptr(2<<30 | size<<16 | 'E'<<8 | number) }
func hasBit(bits []byte, bit int) bool   { return bits[bit/8]&(1<<(bit%8)) != 0 }
func isPower(kind, code uint16) bool     { return kind == evKey && (code == keyPower || code == keyPower2) }

// identify returns the name of an input device, and whether it has a power key.
func identify(fd int) (name string, power bool, err error) {
	var keys [keyMax/8 + 1]byte
	if err := ioctl(fd, eviocgbit(evKey, len(keys)), keys[:]); err != nil {
		return "", false, err
	}
	var text [256]byte
	if err := ioctl(fd, eviocgname(len(text)), text[:]); err != nil {
		return "", false, err
	}
	before, _, _ := bytes.Cut(text[:], []byte{0})
	return string(before), hasBit(keys[:], keyPower) || hasBit(keys[:], keyPower2), nil
}

func ioctl(fd int, request uintptr, buffer []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&buffer[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// powerPresses counts the presses of a power key in what was read from a device. Releases and repeats are none.
func powerPresses(data []byte) int {
	n := 0
	for ; len(data) >= eventSize; data = data[eventSize:] {
		kind, code := binary.NativeEndian.Uint16(data[16:]), binary.NativeEndian.Uint16(data[18:])
		if isPower(kind, code) && binary.NativeEndian.Uint32(data[20:]) == 1 {
			n++
		}
	}
	return n
}
