package linkevents

import (
	"encoding/binary"
	"time"
)

// what is to be looked at: enum what of link.bpf.c.
type what uint32

const (
	carrierUp    what = 1
	carrierDown  what = 2
	linkChange   what = 3
	addresses    what = 4
	routes       what = 5
	lastOfProbes      = routes
)

// subject is what the kernel rang about.
type subject struct {
	what  what
	index int // of the link; 0 for routes
}

// note is what the kernel said.
type note struct {
	at time.Duration // of CLOCK_BOOTTIME
	subject
}

// noteSize is that of struct note in link.bpf.c.
const noteSize = 8 + 4 + 4

// decode reads a struct note.
func decode(b []byte) (note, bool) {
	if len(b) < noteSize {
		return note{}, false
	}
	n := note{
		at:      time.Duration(binary.NativeEndian.Uint64(b)),
		subject: subject{what(binary.NativeEndian.Uint32(b[8:])), int(int32(binary.NativeEndian.Uint32(b[12:])))},
	}
	return n, n.what >= carrierUp && n.what <= lastOfProbes
}

// rung is when the kernel last rang about each subject, as far as that was a moment ago, or nothing has been looked at since.
type rung map[subject]time.Duration

// moment is how long after a ring its change may be seen: the kernel announces some changes before it makes them, and others leave no
// announcement of their own.
const moment = 2 * time.Second

// hear takes in notes, and forgets what at the time now is too old and rang before the look that began at looked: what a ring is about that came
// later is yet to be seen, on a busy machine more than a moment later.
func (r rung) hear(notes []note, looked, now time.Duration) {
	for s, at := range r {
		if at < looked && now-at > moment {
			delete(r, s)
		}
	}
	for _, n := range notes {
		r[n.subject] = n.at
	}
}

// about returns when the kernel rang about the first of the subjects that it rang about, else about anything, else now.
func (r rung) about(now time.Duration, subjects ...subject) time.Duration {
	for _, s := range subjects {
		if at, ok := r[s]; ok {
			return at
		}
	}
	last := time.Duration(-1)
	for _, at := range r {
		last = max(last, at)
	}
	if last < 0 {
		return now
	}
	return last
}
