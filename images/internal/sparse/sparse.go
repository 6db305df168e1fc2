// Package sparse says where a disk image holds data. The writers of formats that leave zeros out call it.
package sparse

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Blocks calls do with the index of each block of a file that is not all hole, in order, until it returns false. Whether a block of zeros is a
// hole is the file system's affair: see Zero.
func Blocks(f *os.File, size, block int64, do func(index int64) bool) error {
	fd := int(f.Fd())
	for next := int64(0); next < size; {
		start, err := unix.Seek(fd, next, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return os.NewSyscallError("lseek SEEK_DATA", err)
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek SEEK_HOLE", err)
		}
		first := max(start/block, (next+block-1)/block)
		last := (min(end, size) + block - 1) / block
		for i := first; i < last; i++ {
			if !do(i) {
				return nil
			}
		}
		next = max(end, last*block)
	}
	return nil
}

// Zero reports whether b, which is not empty, is all zeros. It compares b with itself moved by one byte: the standard library's fastest way.
func Zero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// Extent is a run of bytes of a file.
type Extent struct{ Start, Size int64 }

// grain is the unit of extents: every file system makes holes of it, or of less.
const grain = 64 << 10

// Extents returns the runs of a file that are not zeros, in units of 64 KiB. They are the same on every file system.
func Extents(f *os.File, size int64) ([]Extent, error) {
	var all []Extent
	var readErr error
	buffer := make([]byte, grain)
	err := Blocks(f, size, grain, func(index int64) bool {
		start := index * grain
		b := buffer[:min(grain, size-start)]
		if _, readErr = f.ReadAt(b, start); readErr != nil {
			return false
		}
		switch last := len(all) - 1; {
		case Zero(b):
		case last >= 0 && all[last].Start+all[last].Size == start:
			all[last].Size += int64(len(b))
		default:
			all = append(all, Extent{start, int64(len(b))})
		}
		return true
	})
	return all, errors.Join(err, readErr)
}
