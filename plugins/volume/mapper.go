package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/mapper"
)

// mapped are the encrypted volumes that the kernel shows.
type mapped interface {
	// open has it show a volume on a device by a name, and returns the device that shows it and its size. One that is shown already is good. It fails
	// with EBUSY while somebody uses the device.
	open(name, device string, v *vault) (node string, size int64, err error)
	// find returns the device that shows a volume, "" if there is none.
	find(name string) (node string, err error)
	// close ends it. It fails with EBUSY while somebody uses it.
	close(name string) error
}

// linux is the kernel that runs.
type linux struct{}

// deviceName is a volume's name among the mapped devices: nobody else's is taken for one of the plugin's.
func deviceName(name string) string { return "cosi-" + name }

func (linux) open(name, device string, v *vault) (string, int64, error) {
	total, err := sizeOf(device)
	if err != nil {
		return "", 0, err
	}
	sectors, arguments, err := v.header.Target(device, total, v.key)
	if err != nil {
		return "", 0, err
	}
	d := mapper.Device{
		Name: deviceName(name), UUID: "CRYPT-LUKS2-" + strings.ReplaceAll(v.header.UUID(), "-", "") + "-" + deviceName(name),
		Target: mapper.Target{Kind: "crypt", Sectors: sectors, Arguments: arguments},
	}
	if node, err := find(d); err != nil || node != "" {
		return node, sectors * mapper.Sector, err
	}
	if err := unused(device); err != nil {
		return "", 0, err
	}
	if err := send(d.Make()...); err != nil {
		send(d.Remove()) // what was made of it
		return "", 0, fmt.Errorf("mapped device of %s: %w", device, err)
	}
	node, err := find(d)
	return node, sectors * mapper.Sector, err
}

func (linux) find(name string) (string, error) { return find(mapper.Device{Name: deviceName(name)}) }

func (linux) close(name string) error { return send(mapper.Device{Name: deviceName(name)}.Remove()) }

func find(d mapper.Device) (string, error) {
	status := d.Status()
	err := send(status)
	if errors.Is(err, unix.ENXIO) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	node, _, err := status.Node()
	return node, err
}

// unused fails with EBUSY while a device is used: mounted, or by a volume of another name. The kernel alone would let two volumes share one, and two file
// systems spoil it.
func unused(device string) error {
	f, err := openDevice(device, unix.O_EXCL)
	if err != nil {
		return err
	}
	return f.Close()
}

// send sends requests one after the other.
func send(all ...mapper.Request) error {
	f, err := os.OpenFile(mapper.Control, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the kernel has no device mapper yet") // a module, which PID 1 loads
	} else if err != nil {
		return err
	}
	defer f.Close()
	for _, r := range all {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), r.Number, uintptr(unsafe.Pointer(&r.Data[0])))
		if r.Number == unix.DM_TABLE_LOAD {
			clear(r.Data) // the key
		}
		if errno != 0 {
			return fmt.Errorf("%s: %w", r.Name, errno)
		}
	}
	return nil
}

// sizeOf is that of a block device in bytes.
func sizeOf(device string) (int64, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}
