package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
)

// errSourceMissing says that the block device is not there. It may come.
var errSourceMissing = errors.New("no such device")

// errNoFileSystem says that the kernel does not know a file system. Its module may come.
var errNoFileSystem = errors.New("the kernel has no file system")

// errBusy says that somebody uses the file system.
var errBusy = errors.New("it is in use")

// mountAt mounts what p asks for. On error nothing is mounted; directories that it made stay.
func mountAt(p *storagepb.MountPoint) error {
	bits, err := flagBits(p.GetFlags())
	if err != nil {
		return err
	}
	if _, err := deviceOf(p.GetSource()); err != nil {
		return err
	}
	dir, err := openDirectory(p.GetTarget(), true)
	if err != nil {
		return fmt.Errorf("target %w", err)
	}
	defer unix.Close(dir)
	return explain(p, unix.Mount(p.GetSource(), descriptorPath(dir), p.GetFstype(), bits, rootOwned(p)))
}

// rootOwned returns the data of p. A tmpfs belongs to whoever mounts it, which here is the plugin's user: without a word of p it is
// root's, as everywhere else.
func rootOwned(p *storagepb.MountPoint) string {
	data := p.GetData()
	if p.GetFstype() != "tmpfs" {
		return data
	}
	for _, id := range []string{"uid=", "gid="} {
		if !strings.HasPrefix(data, id) && !strings.Contains(data, ","+id) {
			data = strings.TrimPrefix(data+","+id+"0", ",")
		}
	}
	return data
}

// remountAt gives what is mounted at the target the flags and the data of p.
func remountAt(p *storagepb.MountPoint) error {
	bits, err := flagBits(p.GetFlags())
	if err != nil {
		return err
	}
	dir, err := openDirectory(p.GetTarget(), false)
	if err != nil {
		return fmt.Errorf("target %w", err)
	}
	defer unix.Close(dir)
	return explain(p, unix.Mount("", descriptorPath(dir), "", bits|unix.MS_REMOUNT, p.GetData()))
}

// unmountAt unmounts what is seen at target. It fails with errBusy while somebody uses it.
func unmountAt(target string) error {
	// An open descriptor of the target itself would keep it busy: go by its parent.
	dir, err := openDirectory(filepath.Dir(target), false)
	if err != nil {
		return fmt.Errorf("target %w", err)
	}
	defer unix.Close(dir)
	err = unix.Unmount(descriptorPath(dir)+"/"+filepath.Base(target), unix.UMOUNT_NOFOLLOW)
	if err == unix.EBUSY {
		return errBusy
	}
	return err
}

// deviceOf returns the number of a block device, 0 for an image file and for a source that is no path, or errSourceMissing.
func deviceOf(source string) (uint64, error) {
	if !strings.HasPrefix(source, "/") {
		return 0, nil
	}
	var stat unix.Stat_t
	switch err := unix.Stat(source, &stat); {
	case errors.Is(err, fs.ErrNotExist), err == unix.ENOTDIR:
		return 0, fmt.Errorf("%s: %w", source, errSourceMissing)
	case err != nil:
		return 0, fmt.Errorf("%s: %w", source, err)
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return stat.Rdev, nil
	case unix.S_IFREG: // erofs mounts a file since Linux 6.12
		return 0, nil
	}
	return 0, fmt.Errorf("%s is not a block device", source)
}

// explain puts the errors of mount(2) that say little into words.
func explain(p *storagepb.MountPoint, err error) error {
	switch err {
	case nil:
		return nil
	case unix.ENODEV:
		return fmt.Errorf("%w %q", errNoFileSystem, p.GetFstype())
	case unix.EINVAL:
		return fmt.Errorf("%w: %s holds no %s, or an option is wrong (data %q)", err, p.GetSource(), p.GetFstype(), p.GetData())
	case unix.EACCES, unix.EPERM:
		return fmt.Errorf("%w: %s is write-protected, or not the plugin's to open (flag \"ro\"?)", err, p.GetSource())
	case unix.EBUSY:
		return fmt.Errorf("%w: %s is in use", err, p.GetSource())
	case unix.ENXIO:
		return fmt.Errorf("%s: %w", p.GetSource(), errSourceMissing)
	}
	return err
}
