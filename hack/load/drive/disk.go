package drive

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is what a server keeps its data on.
type disk struct {
	dir  string
	stat string // the file that counts what the whole disk did
}

// fileSystems are those whose fdatasync waits for a disk, by the number that statfs gives.
var fileSystems = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs"}

// openDisk finds the disk below a directory. It fails where nothing waits for one, as on tmpfs: figures would be worthless.
func openDisk(dir string) (*disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fileSystems[int64(fs.Type)] == "" {
		return nil, fmt.Errorf("%s is on a file system of type %#x: durable writes are measured on ext4 or xfs alone", dir, fs.Type)
	}
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	device, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(s.Dev), unix.Minor(s.Dev)))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(device, "partition")); err == nil {
		device = filepath.Dir(device) // flushes count for the whole
	}
	return &disk{dir, filepath.Join(device, "stat")}, nil
}

// flushes returns how often the disk was told to make durable what it has, by whomever. No disk never is.
func (d *disk) flushes() (int64, error) {
	if d == nil {
		return 0, nil
	}
	data, err := os.ReadFile(d.stat)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	const flushes = 15 // since Linux 5.5; see Documentation/block/stat.rst
	if len(fields) <= flushes {
		return 0, fmt.Errorf("%s does not count flushes", d.stat)
	}
	return strconv.ParseInt(fields[flushes], 10, 64)
}

// fdatasync measures the median of what a write of 512 bytes into a file that has its length waits for.
func (d *disk) fdatasync() (time.Duration, error) {
	f, err := os.CreateTemp(d.dir, "fdatasync")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	took := make([]time.Duration, 200)
	if _, err := f.WriteAt(make([]byte, 512*len(took)), 0); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	for i := range took {
		begun := time.Now()
		if _, err := f.WriteAt(make([]byte, 512), int64(i)*512); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, os.NewSyscallError("fdatasync", err)
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return percentile(took, 50), nil
}
