package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/volume"
)

// ext4ResizeFS is EXT4_IOC_RESIZE_FS (include/uapi/linux/ext4.h).
const ext4ResizeFS = 0x40086610

// grow has the kernel make the ext4 on a device as large as that. It does so with a file system that is mounted, which this one is meanwhile.
func grow(device string) (err error) {
	size, err := sizeOf(device)
	if err != nil {
		return err
	}
	dir := filepath.Join(volume.Dir, "new")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := unix.Mount(device, dir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0)) }()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	blocks := uint64(size / 4096)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow %s to %d blocks: %w", device, blocks, errno)
	}
	return nil
}
