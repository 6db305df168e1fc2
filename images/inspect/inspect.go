// Package inspect reads what is in an image: cosictl validates against the kinds of one.
//
// It takes what the image builder writes: a raw disk, a qcow2, an ISO, a unified kernel image, or an initramfs that is not compressed.
package inspect

import (
	"bytes"
	"compress/gzip"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/qcow2"
	"github.com/cosi-os/cosi/images/rootfs"
)

// efiSystem is the type of an EFI system partition (UEFI Specification 2.10, 5.3.3).
const efiSystem = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"

// errForeign says that a file is none of our images.
var errForeign = errors.New("is no image of a COSI node (raw, qcow2, ISO, .efi or .initramfs)")

// Kinds returns the kinds that nodes of the image have from the start.
func Kinds(path string) (*kinds.Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	root, err := rootOf(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	compressed, err := fs.ReadFile(root, plan.Kinds)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: does not say which kinds it has: it was built before images did", path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, plan.Kinds, err)
	}
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, plan.Kinds, err)
	}
	all, err := descriptors.Kinds(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, plan.Kinds, err)
	}
	return kinds.NewSet(all...)
}

// rootOf finds the root file system of a file of size bytes, by what it begins with.
func rootOf(f io.ReaderAt, size int64) (fs.FS, error) {
	head := make([]byte, 8)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, errForeign
	}
	switch {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		inner, err := qcow2.Open(f, size)
		if err != nil {
			return nil, err
		}
		return disk(inner, inner.Size())
	case bytes.HasPrefix(head, []byte("070701")):
		return initramfs(f)
	case bytes.HasPrefix(head, []byte("MZ")):
		return kernelImage(f)
	}
	return disk(f, size)
}

// disk reads the boot loader's file of a disk, or of an ISO: that has a partition table too.
func disk(f io.ReaderAt, size int64) (fs.FS, error) {
	table, err := gpt.Read(f, size)
	if err != nil {
		return nil, errForeign
	}
	for _, p := range table.Partitions {
		if p.Type.String() != efiSystem {
			continue
		}
		volume, err := fat32.Read(file.New(section{io.NewSectionReader(f, 0, size)}, true), p.End-p.Start, p.Start, gpt.Sector)
		if err != nil {
			return nil, fmt.Errorf("EFI system partition: %w", err)
		}
		for _, name := range []string{"/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/BOOTAA64.EFI"} {
			loader, err := volume.OpenFile(name, os.O_RDONLY)
			if err != nil {
				continue
			}
			data, err := io.ReadAll(loader)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return kernelImage(bytes.NewReader(data))
		}
	}
	return nil, errForeign
}

// section makes a file of what can be read, for package fat32.
type section struct{ *io.SectionReader }

func (section) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }
func (section) Close() error               { return nil }

func kernelImage(r io.ReaderAt) (fs.FS, error) {
	image, err := pe.NewFile(r)
	if err != nil {
		return nil, errForeign
	}
	section := image.Section(".initrd")
	if section == nil {
		return nil, errForeign
	}
	return initramfs(io.NewSectionReader(section, 0, int64(section.VirtualSize)))
}

func initramfs(r io.ReaderAt) (fs.FS, error) {
	magic := make([]byte, 6)
	if _, err := r.ReadAt(magic, 0); err != nil || string(magic) != "070701" {
		return nil, errors.New("its initramfs is compressed: build it with compression none")
	}
	for records := cpio.Newc.Reader(r); ; {
		record, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil, errForeign
		}
		if err != nil {
			return nil, fmt.Errorf("initramfs: %w", err)
		}
		if record.Name == "root.erofs" {
			return rootfs.Open(record.ReaderAt)
		}
	}
}
