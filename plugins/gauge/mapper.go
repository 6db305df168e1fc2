package gauge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

// mapDevice makes a device of the device mapper, gives it another table if it is there, or removes it, by dm-ioctl.h.
func mapDevice(d *testpb.GaugeRequest_MappedDevice) error {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	if d.GetMib() == 0 {
		return mapper(control, "remove", unix.DM_DEV_REMOVE, d, nil)
	}
	err = mapper(control, "create", unix.DM_DEV_CREATE, d, nil)
	if errors.Is(err, unix.EBUSY) { // it is there
		err = nil
	}
	if err == nil {
		err = mapper(control, "load", unix.DM_TABLE_LOAD, d, errorTable(uint64(d.GetMib())<<20/512))
	}
	if err == nil {
		err = mapper(control, "resume", unix.DM_DEV_SUSPEND, d, nil) // without DM_SUSPEND_FLAG
	}
	return err
}

// mapper sends a request, with targets behind it.
func mapper(control *os.File, name string, request uintptr, d *testpb.GaugeRequest_MappedDevice, targets []byte) error {
	h := unix.DmIoctl{Version: [3]uint32{4, 0, 0}, Data_size: uint32(unix.SizeofDmIoctl + len(targets)), Data_start: unix.SizeofDmIoctl}
	copy(h.Name[:len(h.Name)-1], d.GetName())
	if d.GetReadOnly() {
		h.Flags = unix.DM_READONLY_FLAG
	}
	if len(targets) > 0 {
		h.Target_count = 1
	}
	b, err := binary.Append(nil, binary.NativeEndian, h)
	if err != nil {
		return err
	}
	b = append(b, targets...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return fmt.Errorf("device mapper: %s %q: %w", name, d.GetName(), errno)
	}
	return nil
}

// errorTable is that of a device whose requests fail, which needs no other device below it.
func errorTable(sectors uint64) []byte {
	target := unix.DmTargetSpec{Length: sectors, Next: unix.SizeofDmTargetSpec + 8}
	copy(target.Target_type[:], "error")
	b, err := binary.Append(nil, binary.NativeEndian, target)
	if err != nil {
		panic(err) // it is of a fixed size
	}
	return append(b, make([]byte, 8)...) // no arguments
}

// protect makes a block device read-only, or writable if it is read-only, for which nobody but the kernel need know it.
func protect(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	is, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 1-is)
	}
	if err != nil {
		return fmt.Errorf("protect %s: %w", device, err)
	}
	return nil
}
