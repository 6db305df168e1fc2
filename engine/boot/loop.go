package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// imageFlags are those of a root image.
const imageFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV

// mountImage mounts a file that is an erofs, read-only. Linux does that itself since 6.12; one that says that the file is no block device gets
// a loop device, which goes when the file system is unmounted.
func mountImage(file, target string) error {
	err := unix.Mount(file, target, "erofs", imageFlags, "")
	if !errors.Is(err, unix.ENOTBLK) {
		return err
	}
	loop, err := attach(file)
	if err != nil {
		return err
	}
	defer loop.Close()
	return unix.Mount(loop.Name(), target, "erofs", imageFlags, "")
}

// attach returns a loop device that shows a file, for as long as it is open or mounted.
func attach(file string) (*os.File, error) {
	backing, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer backing.Close() // the device holds it
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("get a free loop device: %w", err)
	}
	loop, err := os.Open(fmt.Sprintf("/dev/loop%d", number))
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &config); err != nil {
		return nil, errors.Join(fmt.Errorf("configure %s: %w", loop.Name(), err), loop.Close())
	}
	return loop, nil
}
