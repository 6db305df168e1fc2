package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// diskSize is the size of the node's disk, the image and room for its state; minimumState is how much room that has behind a large image.
const (
	diskSize     = 4 << 30
	minimumState = 1 << 30
)

// system is the disk that the node boots from.
type system struct {
	file string
	// kept: the node writes to file, and the next run finds it.
	kept bool
	// said is what a user may not expect, in words.
	said string
}

// systemDisk returns the disk below dir that the image was put on. It outlives the run: the node keeps its state on it. When the image is
// another one than in the last run, the disk gets its partitions and keeps the state. Only a raw image that boots by itself is put on a
// disk; of any other, and of a fresh one's predecessor, nothing is kept.
func systemDisk(o options) (system, error) {
	if o.boot == node.Kernel || filepath.Ext(o.image) != ".raw" {
		return system{file: o.image}, nil
	}
	s := system{file: filepath.Join(o.dir, "system.raw"), kept: true}
	wanted, err := readTable(o.image)
	if err != nil {
		return s, err
	}
	there, err := readTable(s.file)
	switch {
	case errors.Is(err, os.ErrNotExist) || o.fresh:
		return s, putOn(s.file, o.image, wanted, nil)
	case err != nil:
		s.said = fmt.Sprintf("%s is not usable (%v): the node starts afresh", s.file, err)
		return s, putOn(s.file, o.image, wanted, nil)
	case there.DiskGUID == wanted.DiskGUID:
		return s, nil
	}
	state := slices.IndexFunc(there.Partitions, func(p gpt.Partition) bool { return p.Type == gpt.State })
	if state < 0 || there.Partitions[state].Start < lastEnd(wanted) {
		s.said = "the image has changed: the node starts afresh"
		return s, putOn(s.file, o.image, wanted, nil)
	}
	s.said = "the image has changed: the node keeps its state"
	return s, putOn(s.file, o.image, wanted, &there.Partitions[state])
}

func readTable(file string) (*gpt.Table, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	t, err := gpt.Read(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// lastEnd is where the last partition ends.
func lastEnd(t *gpt.Table) int64 {
	var last int64
	for _, p := range t.Partitions {
		last = max(last, p.End)
	}
	return last
}

// putOn makes file a disk with the image, and with the state partition that file held, unless that is nil. An interruption leaves file as
// it was.
func putOn(file, image string, table *gpt.Table, state *gpt.Partition) error {
	fresh := file + ".new"
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size := max(diskSize, lastEnd(table)+minimumState)
	if state != nil {
		size = max(size, (state.End+2<<20-1)>>20<<20)
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := copyData(f, image, 0, lastEnd(table)); err != nil {
		return err
	}
	if state != nil {
		if err := copyData(f, file, state.Start, state.End); err != nil {
			return err
		}
		table.Partitions = append(table.Partitions, *state)
		if err := table.Write(unsynced{f}, size); err != nil {
			return err
		}
	}
	return os.Rename(fresh, file)
}

// unsynced is a file that need not survive a loss of power.
type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

// copyData copies what a file holds between two places to the same places in f, but for its holes.
func copyData(f *os.File, file string, from, to int64) error {
	source, err := os.Open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	for at := from; at < to; {
		data, err := unix.Seek(int(source.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && data >= to { // a hole up to the end
			return nil
		}
		if err != nil {
			return &os.PathError{Op: "seek", Path: file, Err: err}
		}
		hole, err := unix.Seek(int(source.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return &os.PathError{Op: "seek", Path: file, Err: err}
		}
		at = min(hole, to)
		if _, err := io.Copy(io.NewOffsetWriter(f, data), io.NewSectionReader(source, data, at-data)); err != nil {
			return fmt.Errorf("copy %s: %w", file, err)
		}
	}
	return nil
}
