package powerevents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
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

const (
	// eviocsclockid is _IOW('E', 0xa0, int).
	eviocsclockid = 1<<30 | 4<<16 | 'E'<<8 | 0xa0
	// eviocsmask is _IOW('E', 0x93, struct input_mask): type and number of codes, of 32 bits each, and a pointer to a bit for each code. What
	// has no bit is not queued.
	eviocsmask    = 1<<30 | inputMaskSize<<16 | 'E'<<8 | 0x93
	inputMaskSize = 16
)

// identify returns the name of an input device, and whether it has a key or a switch that matters. From then on its events carry the time of
// CLOCK_BOOTTIME.
func identify(fd int) (name string, ours bool, err error) {
	ours, err = hasCode(fd, evKey, keyMax, keyPower, keyPower2, keySleep)
	if err == nil && !ours {
		ours, err = hasCode(fd, evSw, swMax, swLid)
	}
	if err != nil || !ours {
		return "", false, err
	}
	name, err = deviceName(fd)
	return name, err == nil, errors.Join(err, ioctl(fd, eviocsclockid, binary.NativeEndian.AppendUint32(nil, unix.CLOCK_BOOTTIME)))
}

// identifyLid returns the name of an input device, and whether it is a lid. From then on none of its events is queued for fd.
func identifyLid(fd int) (name string, ours bool, err error) {
	if ours, err = hasCode(fd, evSw, swMax, swLid); err != nil || !ours {
		return "", false, err
	}
	name, err = deviceName(fd)
	return name, err == nil, errors.Join(err, ioctl(fd, eviocsmask, binary.NativeEndian.AppendUint32(make([]byte, 0, inputMaskSize), evSw)[:inputMaskSize]))
}

// hasCode reports whether an input device has one of the codes of a type of event; last is the last that there may be.
func hasCode(fd, kind, last int, codes ...int) (bool, error) {
	bits := make([]byte, last/8+1)
	err := ioctl(fd, eviocgbit(kind, len(bits)), bits)
	return slices.ContainsFunc(codes, func(code int) bool { return hasBit(bits, code) }), err
}

func deviceName(fd int) (string, error) {
	var text [256]byte
	err := ioctl(fd, eviocgname(len(text)), text[:])
	before, _, _ := bytes.Cut(text[:], []byte{0})
	return string(before), err
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
