package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
)

// granule is what is told from zeros as a whole.
const granule = 64 << 10

// Rest says how the image that Write wrote into f is made of the root in slot A, a kernel on the EFI system partition, and what is returned beside: the
// rest. Each partition is set from its beginning to its last byte that is used, and for a MiB at the least, so that nothing is found there
// that a disk held before.
func (s Spec) Rest(f *os.File, kernel string) (*upgrade.Disk, content.Content, error) {
	d, rest, err := s.rest(f, kernel)
	if err != nil {
		return nil, nil, fmt.Errorf("disk: %w", err)
	}
	return d, rest, nil
}

func (s Spec) rest(f *os.File, kernel string) (*upgrade.Disk, content.Content, error) {
	table := s.table().Partitions
	esp, slotA := table[1], table[2]
	system, err := fat.Open(readOnly{io.NewSectionReader(f, esp.Start, esp.End-esp.Start)})
	if err != nil {
		return nil, nil, err
	}
	pieces, err := system.Pieces(kernel)
	if err != nil {
		return nil, nil, err
	}
	if len(pieces) != 1 {
		return nil, nil, fmt.Errorf("%s lies in %d pieces", kernel, len(pieces))
	}
	d := &upgrade.Disk{Image: s.Size(), RootAt: slotA.Start, KernelAt: esp.Start + pieces[0].Offset}
	for _, p := range table {
		var inside []run // what is there already
		switch p.Start {
		case esp.Start:
			inside = []run{{d.KernelAt, d.KernelAt + pieces[0].Size, false}}
		case slotA.Start:
			inside = []run{{d.RootAt, d.RootAt + s.Roots[0].Size(), false}}
		}
		runs, err := used(f, p.Start, p.End, inside)
		if err != nil {
			return nil, nil, err
		}
		for _, r := range runs {
			d.Pieces = r.add(d.Pieces)
		}
	}
	rest := &content.Joined{}
	rest.Append(io.NewSectionReader(f, 0, upgrade.HeadSize))
	for _, p := range d.Pieces {
		rest.Append(io.NewSectionReader(f, p.At, p.Size))
	}
	return d, rest, nil
}

// run is a part of the disk.
type run struct {
	start, end int64
	zero       bool
}

// add appends the run to pieces that lie before it.
func (r run) add(all []upgrade.Piece) []upgrade.Piece {
	size := r.end - r.start
	var last *upgrade.Piece
	if n := len(all); n > 0 && all[n-1].At+all[n-1].Size+all[n-1].Zeros == r.start {
		last = &all[n-1]
	}
	switch {
	case r.zero && last != nil:
		last.Zeros += size
	case r.zero:
		return append(all, upgrade.Piece{At: r.start, Zeros: size})
	case last != nil && last.Zeros == 0:
		last.Size += size
	default:
		return append(all, upgrade.Piece{At: r.start, Size: size})
	}
	return all
}

// used returns what lies from start up to the last byte that is used, or a MiB on, without what lies inside.
func used(f *os.File, start, end int64, inside []run) ([]run, error) {
	var all []run
	take := func(from, to int64) error {
		for at := from; at < to; {
			data, err := nextData(f, at, to)
			if err != nil {
				return err
			}
			if data > at {
				all = append(all, run{at, data, true})
				at = data
				continue
			}
			next := min((at/granule+1)*granule, to)
			b := make([]byte, next-at)
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			all = append(all, run{at, next, len(bytes.TrimLeft(b, "\x00")) == 0})
			at = next
		}
		return nil
	}
	at := start
	for _, r := range inside {
		if err := take(at, r.start); err != nil {
			return nil, err
		}
		at = r.end
	}
	if err := take(at, end); err != nil {
		return nil, err
	}
	for n := len(all); n > 0 && all[n-1].zero && all[n-1].end > start+mib; n-- {
		if all[n-1].start < start+mib {
			all[n-1].end = start + mib
			break
		}
		all = all[:n-1]
	}
	return all, nil
}

// nextData returns where the next data of a sparse file lies, between at and end.
func nextData(f *os.File, at, end int64) (int64, error) {
	data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return end, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("lseek SEEK_DATA", err)
	}
	return min(data, end), nil
}

// readOnly is a file system that is looked at.
type readOnly struct{ io.ReaderAt }

func (readOnly) WriteAt([]byte, int64) (int, error) { return 0, errors.New("it is only looked at") }

func (readOnly) Sync() error { return nil }
