package gauge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// changeRoot tries to change the file system that root is, before and after it is told to be writable. It fails with what is not refused, or for
// another reason than that the file system is read-only. A block device that it is on has to be read-only, too.
func changeRoot(root string) error {
	errs := []error{readOnlyDevice(root), change(root)}
	const flags = unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", root, "", flags, ""); err == nil {
		defer unix.Mount("", root, "", flags|unix.MS_RDONLY, "") // of the mount alone, if it is as it should be
	}
	if err := change(root); err != nil {
		errs = append(errs, fmt.Errorf("remounted: %w", err))
	}
	return errors.Join(errs...)
}

// change tries each way to change files.
func change(root string) (err error) {
	dir, file := filepath.Join(root, "usr/lib"), filepath.Join(root, "usr/lib/os-release")
	fresh := filepath.Join(dir, "gauge")
	now := time.Now()
	for _, try := range []struct {
		name string
		err  error
	}{
		{"create a file", with(fresh, os.O_WRONLY|os.O_CREATE)},
		{"make a directory", os.Mkdir(fresh+".d", 0o700)},
		{"make a symbolic link", os.Symlink("gauge", fresh+".l")},
		{"make a device", unix.Mknod(fresh+".n", unix.S_IFIFO|0o600, 0)},
		{"link", os.Link(file, fresh+".h")},
		{"open for writing", with(file, os.O_WRONLY)},
		{"open for appending", with(file, os.O_WRONLY|os.O_APPEND)},
		{"truncate", os.Truncate(file, 1)},
		{"change the mode", os.Chmod(file, 0o600)},
		{"change the owner", os.Lchown(file, os.Getuid(), os.Getgid())},
		{"change the time", os.Chtimes(file, now, now)},
		{"set an attribute", unix.Setxattr(file, "user.gauge", []byte("x"), 0)},
		{"rename", os.Rename(file, fresh+".r")},
		{"remove", os.Remove(file)},
		{"remove a directory", os.Remove(dir)},
	} {
		if !errors.Is(try.err, unix.EROFS) {
			err = errors.Join(err, fmt.Errorf("%s: %v, not %w", try.name, try.err, unix.EROFS))
		}
	}
	return err
}

func with(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// readOnlyDevice fails if the file system of root is on a block device that can be written to.
func readOnlyDevice(root string) error {
	var stat unix.Stat_t
	if err := unix.Stat(root, &stat); err != nil {
		return err
	}
	if unix.Major(stat.Dev) == 0 { // on none
		return nil
	}
	path := fmt.Sprintf("/sys/dev/block/%d:%d/ro", unix.Major(stat.Dev), unix.Minor(stat.Dev))
	ro, err := os.ReadFile(path)
	if err == nil && string(ro) != "1\n" {
		err = fmt.Errorf("%s is %q", path, ro)
	}
	return err
}
