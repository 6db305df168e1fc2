package slot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/verity"
)

const (
	control = "/dev/mapper/control"
	// mapped is the device's name among the mapped ones.
	mapped = "root"
	sector = 512
)

// open makes the device by which the image in a partition is read, and returns its node.
func open(partition string, tree *verity.Tree) (string, error) {
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, step := range []struct {
		name    string
		request uintptr
		targets []byte
	}{
		{"create", unix.DM_DEV_CREATE, nil},
		{"load", unix.DM_TABLE_LOAD, target("verity", tree.Size()/sector, tree.Target(partition))},
		{"resume", unix.DM_DEV_SUSPEND, nil},
	} {
		if err := command(f, step.request, tree, step.targets); err != nil {
			return "", fmt.Errorf("mapped device of %s: %s: %w", partition, step.name, err)
		}
	}
	return nodeOf(f, tree)
}

// header begins every request. The UUID is as cryptsetup makes it, which is how other programs know the kind of the device.
func header(tree *verity.Tree, size int) unix.DmIoctl {
	h := unix.DmIoctl{Version: [3]uint32{4, 0, 0}, Data_size: uint32(size), Data_start: unix.SizeofDmIoctl, Flags: unix.DM_READONLY_FLAG}
	copy(h.Name[:], mapped)
	copy(h.Uuid[:], fmt.Sprintf("CRYPT-VERITY-%x-%s", tree.UUID, mapped))
	return h
}

// command sends a request, with targets behind it.
func command(f *os.File, request uintptr, tree *verity.Tree, targets []byte) error {
	b := make([]byte, unix.SizeofDmIoctl, unix.SizeofDmIoctl+len(targets))
	h := header(tree, cap(b))
	if len(targets) > 0 {
		h.Target_count = 1
	}
	if request != unix.DM_DEV_CREATE { // a name or a UUID: both are refused
		h.Uuid = [129]byte{}
	}
	if _, err := binary.Encode(b, binary.NativeEndian, h); err != nil {
		return err
	}
	b = append(b, targets...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return errno
	}
	return nil
}

// target encodes the only target of a device, with the zero that ends its arguments, in whole words.
func target(kind string, sectors int64, arguments string) []byte {
	size := (unix.SizeofDmTargetSpec + len(arguments) + 1 + 7) &^ 7
	spec := unix.DmTargetSpec{Length: uint64(sectors), Next: uint32(size)}
	copy(spec.Target_type[:], kind)
	b := make([]byte, size)
	binary.Encode(b, binary.NativeEndian, spec) // a fixed size, of which there is room
	copy(b[unix.SizeofDmTargetSpec:], arguments)
	return b
}

// nodeOf returns the node that the kernel has made for the device.
func nodeOf(f *os.File, tree *verity.Tree) (string, error) {
	h := header(tree, unix.SizeofDmIoctl)
	h.Uuid = [129]byte{}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.DM_DEV_STATUS, uintptr(unsafe.Pointer(&h))); errno != 0 {
		return "", fmt.Errorf("mapped device: status: %w", errno)
	}
	if h.Flags&unix.DM_READONLY_FLAG == 0 {
		return "", errors.New("mapped device: it can be written to")
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(h.Dev)), nil
}
