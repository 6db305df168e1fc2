package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/gpt"
)

// From include/uapi/linux/blkpg.h and include/uapi/linux/ext4.h. BLKRRPART would fail: the EFI system partition may be in use.
const (
	blkpgIoctl           = 0x1269
	blkpgAddPartition    = 1
	blkpgResizePartition = 3
	ext4ResizeFS         = 0x40086610
)

type blkpgArgument struct {
	op, flags, length int32
	data              unsafe.Pointer
}

type blkpgPartition struct {
	start, length  int64
	number         int32
	device, volume [64]byte
	_              [4]byte
}

// linux is the kernel that runs.
type linux struct{}

func (linux) find(r Root, partition string) (*found, error) { return find(r, partition) }

func (linux) partition(node string) (partition, error) {
	return os.OpenFile(node, os.O_RDWR|unix.O_EXCL, 0)
}

func (linux) mount(node string) error {
	if err := os.MkdirAll(Mount, 0o755); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(node, Mount, "ext4", flags, ""); err != nil && !errors.Is(err, unix.EBUSY) { // mounted already
		return fmt.Errorf("mount %s: %w", node, err)
	}
	return nil
}

func (linux) directory(path string, uid, gid int) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

// announce does nothing if the kernel knows already.
func (linux) announce(f *found, index int) error {
	part := f.table.Partitions[index]
	sectors, err := number(filepath.Join(sysBlock, filepath.Base(f.node(index)), "size"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return blkpg(f, blkpgAddPartition, index, part)
	case err != nil:
		return err
	case sectors == (part.End-part.Start)/gpt.Sector:
		return nil
	}
	return blkpg(f, blkpgResizePartition, index, part)
}

func blkpg(f *found, op int32, index int, part gpt.Partition) error {
	p := &blkpgPartition{start: part.Start, length: part.End - part.Start, number: int32(index + 1)}
	a := &blkpgArgument{op: op, length: int32(unsafe.Sizeof(*p)), data: unsafe.Pointer(p)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.device.(*os.File).Fd(), blkpgIoctl, uintptr(unsafe.Pointer(a)))
	runtime.KeepAlive(p)
	runtime.KeepAlive(a)
	if errno != 0 {
		return fmt.Errorf("%s: tell the kernel of the partition: %w", f.node(index), errno)
	}
	return nil
}

const (
	fsBlock = 4096
	// worthwhile is how many blocks must be missing for the file system to be grown: the kernel leaves a few at the end that are too few.
	worthwhile = 32 * mib / fsBlock
)

func (linux) grow(device string, size int64) error {
	have, err := blocks(device)
	if err != nil {
		return err
	}
	want := uint64(size / fsBlock)
	if want < have+worthwhile {
		return nil
	}
	dir, err := os.Open(Mount)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("from %d to %d blocks: %w", have, want, errno)
	}
	return nil
}

// blocks reads the size of the file system from its superblock.
func blocks(device string) (uint64, error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	superblock := make([]byte, 1024)
	if _, err := file.ReadAt(superblock, 1024); err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	return uint64(le.Uint32(superblock[0x04:])) | uint64(le.Uint32(superblock[0x150:]))<<32, nil
}
