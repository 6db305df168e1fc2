package gauge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

// loopDevice makes a loop device if it is not there, attaches a file to it or detaches the one that it has, or removes it.
func loopDevice(ctx context.Context, d *testpb.GaugeRequest_LoopDevice) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	number := int(d.GetNumber())
	if d.GetGone() {
		if err := unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_REMOVE, number); err != nil {
			return fmt.Errorf("remove loop device %d: %w", number, err)
		}
		return nil
	}
	if err := unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_ADD, number); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make loop device %d: %w", number, err)
	}
	loop, err := granted(ctx, fmt.Sprintf("/dev/loop%d", number))
	if err != nil {
		return err
	}
	defer loop.Close()
	if d.GetMib() == 0 {
		if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) { // it has none
			return fmt.Errorf("detach from %s: %w", loop.Name(), err)
		}
		return nil
	}
	return attach(loop, int64(d.GetMib())<<20)
}

// granted opens a device, which PID 1 lets a plugin do a moment after the kernel has made it.
func granted(ctx context.Context, device string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		if !errors.Is(err, fs.ErrPermission) || ctx.Err() != nil {
			return f, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// attach gives a loop device a file of that size in memory, which lives as long as the device has it.
func attach(loop *os.File, size int64) error {
	file, err := unix.MemfdCreate("gauge", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(file)
	if err := unix.Ftruncate(file, size); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(file)}); err != nil {
		return fmt.Errorf("attach to %s: %w", loop.Name(), err)
	}
	return nil
}
