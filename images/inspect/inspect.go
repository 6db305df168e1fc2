// Package inspect reads what is in an image: cosictl validates against the kinds of one, cosi-image shows one, compares two, and says whether
// one is what its sources give.
//
// It takes what the image builder writes: a disk in any of its formats, compressed or in an archive, an ISO, the file of an upgrade, a unified
// kernel image, an OCI artifact, or an initramfs.
package inspect

import (
	"bytes"
	"compress/gzip"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"regexp"
	"strconv"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/qcow2"
	"github.com/cosi-os/cosi/images/rootfs"
)

// Format is what a file is. It is the suffix of its name, except for a unified kernel image.
type Format string

const (
	Raw       Format = "raw"
	QCOW2     Format = "qcow2"
	ISO       Format = "iso"
	UKI       Format = "uki"
	Initramfs Format = "initramfs"

	VHD  Format = "vhd"
	VMDK Format = "vmdk"
	OVA  Format = "ova"
	GCP  Format = "gcp.tar.gz"
	OCI  Format = "oci.tar"

	// Upgrade is read as the disk that it is installed as.
	Upgrade Format = "upgrade"

	RawZstandard Format = "raw.zst"
	RawGzip      Format = "raw.gz"
	RawXZ        Format = "raw.xz"
)

// efiSystem is the type of an EFI system partition (UEFI Specification 2.10, 5.3.3).
const efiSystem = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"

// errForeign says that a file is none of our images.
var errForeign = errors.New("is no image of a COSI node (a disk, an ISO, an .upgrade, an .efi, an .initramfs, or what was made of one of them for a cloud)")

// Image is an image that is open. Its parts are nested: a disk holds a boot image, that an initramfs, that the root.
type Image struct {
	Format Format
	// Size is the file's.
	Size int64

	path  string
	file  *os.File
	table *gpt.Table        // nil: it is no disk
	esp   *fat32.FileSystem // of the disk
	boot  *pe.File          // nil: it is an initramfs
	raw   *io.SectionReader // all of the boot image
	// loader is what the firmware starts, where that is not the boot image.
	loader *io.SectionReader
	early  []cpio.Record // what is in the initramfs
	Root   fs.FS         // the root file system
	// upgrade is the signature of an Upgrade, if it has one.
	upgrade []byte
}

// Open opens the image in a file. It fails if that is none of ours. The caller closes it.
func Open(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	i := &Image{path: path, file: f}
	if err := i.openFile(); err != nil {
		i.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return i, nil
}

// openFile opens what is in the file, or in what that unpacks to.
func (i *Image) openFile() error {
	info, err := i.file.Stat()
	if err != nil {
		return err
	}
	i.Size = info.Size()
	outer, inner, err := unpack(i.file, i.Size)
	if err != nil {
		return err
	}
	if inner != nil {
		if outer == Upgrade {
			u, err := openUpgrade(i.file)
			if err != nil {
				return err
			}
			i.upgrade = u.Signature()
		}
		i.file.Close()
		i.file = inner
		if info, err = inner.Stat(); err != nil {
			return err
		}
	}
	if err := i.open(i.file, info.Size()); err != nil {
		return err
	}
	if i.Root == nil {
		return errForeign
	}
	if outer != "" {
		i.Format = outer
	}
	return nil
}

// Close closes the file.
func (i *Image) Close() error { return i.file.Close() }

// read returns a file of the root. Errors name the image.
func (i *Image) read(name, what string) ([]byte, error) {
	data, err := fs.ReadFile(i.Root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: does not say %s: it was built before images did", i.path, what)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.path, err)
	}
	return data, nil
}

// Manifest is what the image says of itself.
func (i *Image) Manifest() (*manifest.Manifest, error) {
	data, err := i.read(plan.Manifest, "what it is made of")
	if err != nil {
		return nil, err
	}
	m, err := manifest.Unpack(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", i.path, plan.Manifest, err)
	}
	return m, nil
}

// machines are the architectures of programs for EFI, as Go and Debian call them.
var machines = map[uint16]string{pe.IMAGE_FILE_MACHINE_AMD64: "amd64", pe.IMAGE_FILE_MACHINE_ARM64: "arm64"}

// Arch returns the architecture that the image in a file is for: amd64, arm64. It fails if that is no image of ours with a boot image in it.
func Arch(path string) (string, error) {
	i, err := Open(path)
	if err != nil {
		return "", err
	}
	defer i.Close()
	if i.boot == nil {
		return "", fmt.Errorf("%s: an %s does not say what it is for", path, i.Format)
	}
	arch, ok := machines[i.boot.Machine]
	if !ok {
		return "", fmt.Errorf("%s: machine %#x is neither x86-64 nor arm64", path, i.boot.Machine)
	}
	return arch, nil
}

// Kinds returns the kinds that nodes of the image in a file have from the start.
func Kinds(path string) (*kinds.Set, error) {
	i, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer i.Close()
	compressed, err := i.read(plan.Kinds, "which kinds it has")
	if err != nil {
		return nil, err
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

// open finds out what a file of size bytes is, by what it begins with.
func (i *Image) open(f io.ReaderAt, size int64) error {
	head := make([]byte, 8)
	if _, err := f.ReadAt(head, 0); err != nil {
		return errForeign
	}
	switch {
	case bytes.HasPrefix(head, []byte("QFI\xfb")):
		i.Format = QCOW2
		inner, err := qcow2.Open(f, size)
		if err != nil {
			return err
		}
		return i.openDisk(inner, inner.Size())
	case bytes.HasPrefix(head, []byte("070701")), bytes.HasPrefix(head, legacyLZ4):
		i.Format = Initramfs
		return i.openInitramfs(io.NewSectionReader(f, 0, size))
	case bytes.HasPrefix(head, []byte("MZ")):
		i.Format = UKI
		return i.openBoot(io.NewSectionReader(f, 0, size))
	}
	i.Format = Raw
	if footer := make([]byte, 512); size%512 == 0 && size > 512 {
		if _, err := f.ReadAt(footer, size-512); err == nil && bytes.HasPrefix(footer, []byte("conectix")) {
			i.Format, size = VHD, size-512
		}
	}
	descriptor := make([]byte, 6) // of the primary volume: ECMA-119, 8.4
	if _, err := f.ReadAt(descriptor, 16*2048); err == nil && string(descriptor) == "\x01CD001" {
		i.Format = ISO
	}
	return i.openDisk(f, size)
}

// openDisk reads the boot loader's file of a disk, or of an ISO: that has a partition table too.
func (i *Image) openDisk(f io.ReaderAt, size int64) error {
	var err error
	if i.table, err = gpt.Read(f, size); err != nil {
		if err := cut(size, claimed(f)); err != nil {
			return err
		}
		return errForeign
	}
	for _, p := range i.table.Partitions {
		if p.Type.String() != efiSystem {
			continue
		}
		i.esp, err = fat32.Read(file.New(section{io.NewSectionReader(f, 0, size)}, true), p.End-p.Start, p.Start, gpt.Sector)
		if err != nil {
			return fmt.Errorf("EFI system partition: %w", err)
		}
		program, err := i.openESP()
		if err != nil {
			return err
		}
		if err := i.openBoot(program); err != nil || i.Root != nil {
			return err
		}
		return i.openSlot(f)
	}
	return errForeign
}

// claimed is how many bytes a disk has by its partition table, 0 if that has no header: where the copy of the table ends.
func claimed(f io.ReaderAt) int64 {
	header := make([]byte, 40)
	if _, err := f.ReadAt(header, gpt.Sector); err != nil || !bytes.HasPrefix(header, []byte("EFI PART")) {
		return 0
	}
	last := binary.LittleEndian.Uint64(header[32:])
	return int64(min(last, math.MaxInt64/gpt.Sector-1)+1) * gpt.Sector
}

// cut says that something has less than its size, as a download that was broken off.
func cut(is, want int64) error {
	if is >= want {
		return nil
	}
	return fmt.Errorf("was cut off: it has %d bytes of %d", is, want)
}

// openESP reads what the firmware starts, and returns the unified kernel image: that, or what it starts.
func (i *Image) openESP() (*io.SectionReader, error) {
	for _, name := range []string{"/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/BOOTAA64.EFI"} {
		if opened, err := i.esp.OpenFile(name, os.O_RDONLY); err != nil {
			continue
		} else if err := opened.Close(); err != nil {
			return nil, err
		}
		started, err := i.readESP(name)
		if err != nil {
			return nil, err
		}
		kernel, err := i.kernelFile()
		if err != nil || kernel == "" {
			return program(started), err
		}
		i.loader = program(started)
		data, err := i.readESP(kernel)
		return program(data), err
	}
	return nil, errForeign
}

func program(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

// kernelFile is the unified kernel image that the boot manager starts, "" if there are no entries for one.
func (i *Image) kernelFile() (string, error) {
	var first bootentry.Entry
	entries, _ := i.esp.ReadDir(bootentry.Dir) // a medium has none
	for _, file := range entries {
		if !bootentry.IsEntry(file.Name()) {
			continue
		}
		text, err := i.readESP("/" + bootentry.Dir + "/" + file.Name())
		if err != nil {
			return "", err
		}
		entry, err := bootentry.Parse(file.Name(), string(text))
		if err != nil {
			return "", err
		}
		if entry.State != bootentry.Bad && entry.Number > first.Number {
			first = entry
		}
	}
	if first.Number == 0 {
		return "", nil
	}
	return "/" + first.Kernel(), nil
}

// readESP reads a file of the EFI system partition, all at once: go-diskfs (1.9.4) goes on wrongly in the middle of a cluster.
func (i *Image) readESP(name string) ([]byte, error) {
	opened, err := i.esp.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %s: %w", name, err)
	}
	defer opened.Close()
	info, err := opened.Stat()
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %s: %w", name, err)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(opened, data); err != nil {
		return nil, fmt.Errorf("EFI system partition: %s: %w", name, err)
	}
	return data, nil
}

// rootArguments of the kernel's command line say which root a disk runs, by the hash of the tree behind it.
var rootArguments = regexp.MustCompile(`(?:^| )roothash=([0-9a-f]{64}) systemd\.verity_root_options=hash-offset=(\d{1,12})(?:[ \x00]|$)`)

// openSlot reads the root of a disk that has it in a slot: the one that the kernel is told to run.
func (i *Image) openSlot(f io.ReaderAt) error {
	section := i.boot.Section(".cmdline")
	if section == nil {
		return errForeign
	}
	line, err := section.Data()
	if err != nil {
		return err
	}
	m := rootArguments.FindSubmatch(line)
	if m == nil {
		return errForeign
	}
	hash, err := verity.ParseHash(string(m[1]))
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(string(m[2]), 10, 64)
	if err != nil {
		return err
	}
	for _, p := range i.table.Partitions {
		slot := io.NewSectionReader(f, p.Start, p.End-p.Start)
		if _, err := verity.Find(slot, at, hash); err == nil {
			i.Root, err = rootfs.Open(slot)
			return err
		}
	}
	return fmt.Errorf("no partition holds the root %s", hash)
}

// section makes a file of what can be read, for package fat32.
type section struct{ *io.SectionReader }

func (section) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }
func (section) Close() error               { return nil }

func (i *Image) openBoot(r *io.SectionReader) error {
	image, err := pe.NewFile(r)
	if err != nil {
		return errForeign
	}
	for _, s := range image.Sections {
		if err := cut(r.Size(), int64(s.Offset)+int64(s.Size)); err != nil {
			return err
		}
	}
	i.boot, i.raw = image, r
	initrd := image.Section(".initrd")
	if initrd == nil {
		return errForeign
	}
	return i.openInitramfs(io.NewSectionReader(initrd, 0, int64(initrd.VirtualSize)))
}

// legacyLZ4 is what the form of LZ4 begins with that the kernel reads.
var legacyLZ4 = []byte{0x02, 0x21, 0x4c, 0x18}

// mostUnpacked is how large an initramfs may become.
const mostUnpacked = 1 << 30

// sized is something to read whose size is known.
type sized interface {
	io.ReaderAt
	Size() int64
}

func (i *Image) openInitramfs(r *io.SectionReader) error {
	magic := make([]byte, 6)
	if _, err := r.ReadAt(magic, 0); err != nil {
		return errForeign
	}
	var archive sized = r
	if bytes.HasPrefix(magic, legacyLZ4) {
		plain, err := io.ReadAll(io.LimitReader(lz4.NewReader(r), mostUnpacked))
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		archive = bytes.NewReader(plain)
	} else if string(magic) != "070701" {
		return errForeign
	}
	for records := cpio.Newc.Reader(archive); ; {
		record, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		i.early = append(i.early, record)
		if err := cut(archive.Size(), record.FilePos+int64(record.FileSize)); err != nil {
			return fmt.Errorf("initramfs: %w", err)
		}
		if record.Name != "root.erofs" {
			continue
		}
		if i.Root, err = rootfs.Open(record.ReaderAt); err != nil {
			return err
		}
	}
	return nil
}
