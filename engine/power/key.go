// Package power watches the power key for PID 1, for the case that nobody else can: the runtime is dead, or the key is held.
package power

import (
	"encoding/binary"
	"io"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
)

// hold is how long the key is pressed to switch off whatever the runtime says.
const hold = 4 * time.Second

// From linux/input-event-codes.h.
const (
	eventKey = 1
	keyPower = 116
)

// eventSize of struct input_event where a long has 64 bits.
const eventSize = 24

// Keys decides when a power key switches the machine off.
type Keys struct {
	// Alone reports whether PID 1 is alone: then a short press is enough.
	Alone func() bool
	// Off is called with the reason. It must not block.
	Off func(reason string)
}

// Read reads the events of an input device until it ends.
func (k *Keys) Read(device io.Reader) error {
	var (
		mu    sync.Mutex
		timer *time.Timer
	)
	release := func() {
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
			timer = nil
		}
	}
	defer release()
	buffer := make([]byte, 64*eventSize)
	for {
		n, err := device.Read(buffer)
		if err != nil {
			return err
		}
		for events := buffer[:n]; len(events) >= eventSize; events = events[eventSize:] {
			pressed, ok := parseKey(events[:eventSize])
			switch {
			case !ok:
			case !pressed:
				release()
			case k.Alone():
				k.Off("power key pressed while the runtime is down")
			default:
				mu.Lock()
				if timer == nil {
					timer = time.AfterFunc(hold, func() { defer crash.Guard(); k.Off("power key held") })
				}
				mu.Unlock()
			}
		}
	}
}

// parseKey reads a struct input_event; ok is false if it is not about the power key.
func parseKey(event []byte) (pressed, ok bool) {
	if len(event) < eventSize {
		return false, false
	}
	kind, code := binary.NativeEndian.Uint16(event[16:]), binary.NativeEndian.Uint16(event[18:])
	return binary.NativeEndian.Uint32(event[20:]) != 0, kind == eventKey && code == keyPower
}

// HasPowerKey reports whether an open input device has the key.
func HasPowerKey(fd uintptr) bool {
	var bits [96]byte // KEY_MAX is 0x2ff
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, keyBits(len(bits)), uintptr(unsafe.Pointer(&bits)))
	return errno == 0 && bits[keyPower/8]&(1<<(keyPower%8)) != 0
}

// keyBits is EVIOCGBIT(EV_KEY, size): _IOC(_IOC_READ, 'E', 0x20 + EV_KEY, size).
func keyBits(size int) uintptr { return 2<<30 | uintptr(size)<<16 | 'E'<<8 | 0x20 + eventKey }
