package slot

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/mapper"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// mapped is the device's name among the mapped ones.
const mapped = "root"

// open makes the device by which the image in a partition is read, and returns its node.
func open(partition string, tree *verity.Tree) (string, error) {
	f, err := os.OpenFile(mapper.Control, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	d := mapper.Device{
		Name: mapped, UUID: fmt.Sprintf("CRYPT-VERITY-%x-%s", tree.UUID, mapped), ReadOnly: true,
		Target: mapper.Target{Kind: "verity", Sectors: tree.Size() / mapper.Sector, Arguments: tree.Target(partition)},
	}
	status := d.Status()
	for _, r := range append(d.Make(), status) {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), r.Number, uintptr(unsafe.Pointer(&r.Data[0]))); errno != 0 {
			return "", fmt.Errorf("mapped device of %s: %s: %w", partition, r.Name, errno)
		}
	}
	node, readOnly, err := status.Node()
	if err == nil && !readOnly {
		err = errors.New("mapped device: it can be written to")
	}
	return node, err
}
