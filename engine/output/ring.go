// Package output keeps and shows what the processes of the node print: a bounded ring for each, replayed to the runtime whenever it
// starts, and bounded queues to the consoles that never make a process wait. Only PID 1 calls it.
package output

import "github.com/cosi-os/cosi/engine/wire"

// Limits of a ring.
const (
	ringLines = 2000
	ringBytes = 256 << 10
)

// ring holds the last lines of a process.
type ring struct {
	lines []wire.Output // oldest first
	bytes int
	next  uint64 // sequence number of the last line; lines count from 1
}

// add appends a line, numbers it, and forgets the oldest ones beyond the limits.
func (r *ring) add(line wire.Output) {
	r.next++
	line.Sequence = r.next
	r.lines = append(r.lines, line)
	r.bytes += len(line.Line)
	drop := 0
	for len(r.lines)-drop > ringLines || r.bytes > ringBytes {
		r.bytes -= len(r.lines[drop].Line)
		drop++
	}
	clear(r.lines[:drop]) // the strings must not live on in the array
	r.lines = r.lines[drop:]
}

// after returns at most limit lines whose sequence is above the cursor. The slice is valid until the next add.
func (r *ring) after(cursor uint64, limit int) []wire.Output {
	if len(r.lines) == 0 || cursor >= r.next {
		return nil
	}
	first := r.lines[0].Sequence
	from := 0
	if cursor >= first {
		from = int(cursor - first + 1)
	}
	return r.lines[from:min(from+limit, len(r.lines))]
}
