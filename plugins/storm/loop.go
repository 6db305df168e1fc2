package storm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// device is a loop device on memory. It lives as long as the plugin.
type device struct {
	backing int // a memfd
	loop    *os.File
}

// newDevice returns a device of 1 MiB.
func newDevice() (*device, error) {
	backing, err := unix.MemfdCreate("storm", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	d := &device{backing: backing}
	if err := d.attach(); err != nil {
		return nil, errors.Join(err, unix.Close(backing))
	}
	return d, nil
}

func (d *device) attach() error {
	if err := unix.Ftruncate(d.backing, 1<<20); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return fmt.Errorf("get a free loop device: %w", err)
	}
	if d.loop, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0); err != nil {
		return err
	}
	config := unix.LoopConfig{Fd: uint32(d.backing), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(d.loop.Fd()), &config); err != nil {
		return errors.Join(fmt.Errorf("configure %s: %w", d.loop.Name(), err), d.loop.Close())
	}
	return nil
}

func (d *device) Name() string { return filepath.Base(d.loop.Name()) }

// Resize has the kernel say "resized", once.
func (d *device) Resize(mib int64) error {
	if err := unix.Ftruncate(d.backing, mib<<20); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if err := unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("set the capacity of %s: %w", d.loop.Name(), err)
	}
	return nil
}
