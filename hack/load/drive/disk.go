package drive

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Syncs is how often a server has waited for its disk, and how long each time.
type Syncs struct {
	N   int64
	P50 time.Duration // of the last
}

// memories are file systems on which nothing waits for a disk, by the number that statfs gives.
var memories = map[int64]string{unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs"}

// refuseMemory fails where nothing waits for a disk: figures would be worthless.
func refuseMemory(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if name := memories[int64(fs.Type)]; name != "" {
		return fmt.Errorf("%s is on %s: durable writes are measured on a disk", dir, name)
	}
	return nil
}

// fdatasync measures the median of what a write of 512 bytes into a file that has its length waits for.
func fdatasync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "fdatasync")
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
