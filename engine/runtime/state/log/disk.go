package log

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is what the store does with its directory. Tests stand in for it with one that forgets what was not synced.
type disk interface {
	// Names returns the names of all files, in order.
	Names() ([]string, error)
	Open(name string) (file, error)
	// Create makes an empty file, in the place of one of that name.
	Create(name string) (file, error)
	// Rename puts a file in the place of another.
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes durable what Create, Rename and Remove did.
	Sync() error
	// Close gives the directory back.
	Close() error
}

// file is an open file of a disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Truncate(size int64) error
	// Allocate makes room up to size, and the file that long, so that writes below it neither run out of space nor change its length.
	Allocate(size int64) error
	// Sync makes content and length durable.
	Sync() error
	Close() error
}

// lockName is the file that tells other processes that the directory is in use.
const lockName = "lock"

// directory is a disk below a path, held by this process.
type directory struct {
	path string
	lock *os.File
}

// openDirectory makes the directory if it is not there and locks it. It fails with ErrLocked.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &directory{path: path, lock: lock}, nil
}

func (d *directory) Names() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (d *directory) Open(name string) (file, error) { return d.open(name, os.O_RDWR) }

// Create never empties a file that is there: one whose sync has failed is of no use to anybody.
func (d *directory) Create(name string) (file, error) {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *directory) open(name string, flags int) (file, error) {
	f, err := os.OpenFile(filepath.Join(d.path, name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d *directory) Rename(from, to string) error {
	return os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to))
}

func (d *directory) Remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }

func (d *directory) Sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *directory) Close() error { return d.lock.Close() }

// osFile is a file of the kernel's.
type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Allocate(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil // the file grows as it is written
	}
	return os.NewSyscallError("fallocate", err)
}

// Sync leaves out times, which nobody reads.
func (f osFile) Sync() error {
	return os.NewSyscallError("fdatasync", unix.Fdatasync(int(f.Fd())))
}

// isFull says that err means that there is no space.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
