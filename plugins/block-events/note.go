package blockevents

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
)

// what happened: enum what of block.bpf.c.
type what uint32

const (
	added    what = 1
	removed  what = 2
	resized  what = 3
	readOnly what = 4
	changed  what = 5
	ioError  what = 6
	again    what = 7 // nothing has, but somebody asks to have a look: no event
)

var actions = map[what]string{
	added: "Added", removed: "Removed", resized: "Resized", readOnly: "ReadOnlyChanged", changed: "Changed", ioError: "IOError",
}

// device is a device number.
type device struct{ major, minor uint32 }

// note is what the kernel said of a device.
type note struct {
	at        time.Duration // of CLOCK_BOOTTIME
	what      what
	device    device
	name      string
	partition bool
	sector    uint64
	status    uint8 // blk_status_t of a request that failed
}

// noteSize is that of struct note in block.bpf.c: five words of 32 bits behind two of 64, and a name.
const noteSize = 8 + 8 + 4 + 4 + 4 + 4 + 32

// decode reads a struct note.
func decode(b []byte) (note, bool) {
	if len(b) < noteSize {
		return note{}, false
	}
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	name, _, _ := bytes.Cut(b[32:noteSize], []byte{0})
	dev := word(20)
	n := note{
		at: time.Duration(binary.NativeEndian.Uint64(b)), sector: binary.NativeEndian.Uint64(b[8:]), what: what(word(16)),
		// dev_t inside the kernel: include/linux/kdev_t.h.
		device: device{dev >> 20, dev & (1<<20 - 1)}, status: uint8(word(24)), partition: word(28) != 0, name: string(name),
	}
	return n, n.what >= added && n.what <= again && n.name != ""
}

// statuses are blk_status_t (include/linux/blk_types.h), in the kernel's words (block/blk-core.c).
var statuses = map[uint8]string{
	1: "operation not supported", 2: "timeout", 3: "critical space allocation", 4: "recoverable transport", 5: "critical target",
	6: "reservation conflict", 7: "critical medium", 8: "protection", 9: "kernel resource", 10: "I/O", 11: "dm internal retry",
	12: "nonblocking retry", 13: "device resource", 14: "zone active", 15: "device offline", 16: "zone open", 17: "device offline",
	18: "command duration limit exceeded", 19: "invalid",
}

func (n note) message() string {
	if n.what != ioError {
		return ""
	}
	if words, ok := statuses[n.status]; ok {
		return fmt.Sprintf("%s error, sector %d", words, n.sector)
	}
	return fmt.Sprintf("error %d, sector %d", n.status, n.sector)
}
