package powerevents

import (
	"bytes"
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/input-event-codes.h.
const (
	evSyn      = 0x00
	evKey      = 0x01
	evSw       = 0x05
	synDropped = 3
	keyPower   = 116
	keySleep   = 142
	keyPower2  = 0x164
	keyMax     = 0x2ff
	swLid      = 0x00
	swMax      = 0x10
)

// eventSize is the size of struct input_event on 64-bit machines: two 64-bit words of time, then type, code and value.
const eventSize = 24

// ioctl numbers of linux/input.h: _IOC(_IOC_READ, 'E', number, size).
func eviocgname(size int) uintptr        { return ioctlRead(0x06, size) }
func eviocgbit(event, size int) uintptr  { return ioctlRead(0x20+event, size) }
func ioctlRead(number, size int) uintptr { return uintptr(2<<30 | size<<16 | 'E'<<8 | number) }
func hasBit(bits []byte, bit int) bool   { return bits[bit/8]&(1<<(bit%8)) != 0 }

// eviocsclockid is _IOW('E', 0xa0, int).
const eviocsclockid = 1<<30 | 4<<16 | 'E'<<8 | 0xa0

// identify returns the name of an input device, and whether it has a key or a switch that matters. From then on its events carry the time of
// CLOCK_BOOTTIME.
func identify(fd int) (name string, ours bool, err error) {
	var keys [keyMax/8 + 1]byte
	if err := ioctl(fd, eviocgbit(evKey, len(keys)), keys[:]); err != nil {
		return "", false, err
	}
	var switches [swMax/8 + 1]byte
	if err := ioctl(fd, eviocgbit(evSw, len(switches)), switches[:]); err != nil {
		return "", false, err
	}
	if !hasBit(keys[:], keyPower) && !hasBit(keys[:], keyPower2) && !hasBit(keys[:], keySleep) && !hasBit(switches[:], swLid) {
		return "", false, nil
	}
	var text [256]byte
	if err := ioctl(fd, eviocgname(len(text)), text[:]); err != nil {
		return "", false, err
	}
	before, _, _ := bytes.Cut(text[:], []byte{0})
	return string(before), true, ioctl(fd, eviocsclockid, binary.NativeEndian.AppendUint32(nil, unix.CLOCK_BOOTTIME))
}

func ioctl(fd int, request uintptr, buffer []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&buffer[0])))
	if errno != 0 {
		return errno
	}
	return nil
}

// fromEvdev returns what was read from a device of that name, and whether the kernel had to drop some. Releases and repeats are nothing.
func fromEvdev(name string, data []byte) (notes []note, dropped bool) {
	for ; len(data) >= eventSize; data = data[eventSize:] {
		seconds, micros := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint64(data[8:])
		kind, code, value := binary.NativeEndian.Uint16(data[16:]), binary.NativeEndian.Uint16(data[18:]), binary.NativeEndian.Uint32(data[20:])
		n := note{at: time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond, name: name}
		switch {
		case kind == evSyn && code == synDropped:
			dropped = true
			continue
		case kind == evKey && value == 1 && (code == keyPower || code == keyPower2):
			n.what = powerButton
		case kind == evKey && value == 1 && code == keySleep:
			n.what = sleepButton
		case kind == evSw && code == swLid && value == 0:
			n.what = lidOpened
		case kind == evSw && code == swLid:
			n.what = lidClosed
		default:
			continue
		}
		notes = append(notes, n)
	}
	return notes, dropped
}
