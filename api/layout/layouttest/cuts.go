// Package layouttest stands in for disks in tests of what is written to one: it holds a disk in memory, and shows it as any power cut
// could have left it.
package layouttest

import (
	"errors"
	"io"
	"iter"
	"math/rand/v2"
)

// Memory is a disk.
type Memory struct{ Data []byte }

func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m.Data)) {
		return 0, errors.New("write beyond the disk")
	}
	return copy(m.Data[off:], p), nil
}

func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(m.Data)) {
		return 0, io.EOF
	}
	n := copy(p, m.Data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Sync does nothing: there is nothing behind the memory.
func (*Memory) Sync() error { return nil }

// sector is what a disk writes as a whole.
const sector = 512

type write struct {
	at   int64
	data []byte
}

// Recorder is a disk that remembers what is written to it, sector by sector, and where it was waited for.
type Recorder struct {
	rounds [][]write // each ends with a Sync
	open   []write
}

func (r *Recorder) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	for len(p) > 0 {
		size := min(len(p), int(sector-off%sector))
		r.open = append(r.open, write{off, append([]byte{}, p[:size]...)})
		p, off = p[size:], off+int64(size)
	}
	return n, nil
}

// Sync ends a round: what was written before is on the medium before what follows.
func (r *Recorder) Sync() error {
	r.rounds = append(r.rounds, r.open)
	r.open = nil
	return nil
}

// Writes returns how many sectors were written.
func (r *Recorder) Writes() int {
	n := len(r.open)
	for _, round := range r.rounds {
		n += len(round)
	}
	return n
}

// Cuts yields disks that began as before and lost power: after each round, and within each round as often as tries says with a random
// part of its sectors written. The disk that is yielded may be changed.
func (r *Recorder) Cuts(before []byte, random *rand.Rand, tries int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		disk := append([]byte{}, before...)
		for _, round := range append(r.rounds, r.open) {
			for range tries {
				cut := append([]byte{}, disk...)
				chance := random.Float64()
				for _, w := range round {
					if random.Float64() < chance {
						copy(cut[w.at:], w.data)
					}
				}
				if !yield(cut) {
					return
				}
			}
			for _, w := range round {
				copy(disk[w.at:], w.data)
			}
		}
		yield(disk)
	}
}
