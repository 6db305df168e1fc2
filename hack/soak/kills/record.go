package kills

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/cosi-os/cosi/hack/blklog"
)

// record is what was written to a disk, and what was on it before.
type record struct {
	before string // file; the disk may be larger
	size   int64
	log    *blklog.Log
}

// readRecord reads the log of a disk, to its last flush.
func readRecord(before string, size int64, file *os.File) (record, error) {
	r := record{before: before, size: size}
	info, err := file.Stat()
	if err != nil {
		return r, err
	}
	if r.log, err = blklog.Read(file, info.Size()); err != nil {
		return r, fmt.Errorf("%s: %w", file.Name(), err)
	}
	return r, nil
}

// left returns what is left at p of what was not flushed.
func (r record) left(seed uint64, p Point) []blklog.Piece {
	if !p.Some {
		return nil
	}
	return r.log.Survivors(p.N, rand.New(rand.NewPCG(seed, uint64(p.N))))
}

// disk makes the disk as it was at a point, in a file.
func (r record) disk(seed uint64, p Point, path string) error {
	if err := copyDisk(r.before, path); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	pieces := slices.Concat(r.log.Pieces(0, r.log.Flushed(p.N)), r.left(seed, p))
	return errors.Join(file.Truncate(r.size), r.log.Write(blklog.Window{To: file, Size: r.size}, pieces), file.Close())
}
