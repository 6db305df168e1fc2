package mountevents

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// what happened; the first three are enum what of mount.bpf.c.
type what uint32

const (
	mounted   what = 1
	unmounted what = 2
	changed   what = 3
	faulty    what = 4 // a file system found an error in itself
	something what = 5 // look at the table
)

// note is what the kernel said.
type note struct {
	at    time.Duration // of CLOCK_BOOTTIME
	what  what
	fault fault // if it is faulty
}

// fault is an error of a file system.
type fault struct {
	fsid  unix.Fsid
	inode uint64
	err   unix.Errno
	count uint64 // of errors since the last fault; the first is told
}

// noteSize is that of struct note in mount.bpf.c.
const noteSize = 16

// decode reads a struct note.
func decode(b []byte) (note, bool) {
	if len(b) < noteSize {
		return note{}, false
	}
	n := note{at: time.Duration(binary.NativeEndian.Uint64(b)), what: what(binary.NativeEndian.Uint32(b[8:]))}
	return n, n.what >= mounted && n.what <= changed
}

// Records of fanotify(7): struct fanotify_event_metadata, and behind it records that begin with a type, a byte and their length.
const (
	eventSize  = 24
	headerSize = 4
	// handleINO32 is FILEID_INO32_GEN of the kernel: an inode's number of 32 bits is first in the handle.
	handleINO32 = 1
)

// decodeFaults reads what a read of a fanotify group returned. Without whole, faults are missing: its queue was full.
func decodeFaults(b []byte) (faults []fault, whole bool) {
	whole = true
	for len(b) >= eventSize {
		size := int(binary.NativeEndian.Uint32(b))
		if size < eventSize || size > len(b) {
			break
		}
		mask, head := binary.NativeEndian.Uint64(b[8:]), int(binary.NativeEndian.Uint16(b[6:]))
		if mask&unix.FAN_Q_OVERFLOW != 0 {
			whole = false
		}
		if mask&unix.FAN_FS_ERROR != 0 && head >= eventSize && head <= size {
			faults = append(faults, decodeFault(b[head:size]))
		}
		b = b[size:]
	}
	return faults, whole
}

func decodeFault(b []byte) (f fault) {
	for len(b) >= headerSize {
		size := int(binary.NativeEndian.Uint16(b[2:]))
		if size < headerSize || size > len(b) {
			break
		}
		word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
		switch {
		case b[0] == unix.FAN_EVENT_INFO_TYPE_ERROR && size >= 12:
			err := int32(word(4))
			f.err, f.count = unix.Errno(max(err, -err)), uint64(word(8))
		case b[0] == unix.FAN_EVENT_INFO_TYPE_FID && size >= 20:
			f.fsid = unix.Fsid{Val: [2]int32{int32(word(4)), int32(word(8))}}
			if word(16) == handleINO32 && size >= 24 {
				f.inode = uint64(word(20))
			}
		}
		b = b[size:]
	}
	return f
}
