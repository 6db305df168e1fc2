package userdata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

const (
	// labelCIDATA marks a NoCloud disk: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
	labelCIDATA = "CIDATA"
	cidataFile  = "user-data"
	// labelConfigDrive marks OpenStack's: "Metadata", Nova's user documentation.
	labelConfigDrive = "config-2"
	configDriveFile  = "openstack/latest/user_data"
	// espFile is for whoever flashes an image and drops a file beside the boot loader.
	espFile = "user-data.yaml"
	// espDir tells an EFI system partition from other FAT file systems.
	espDir = "EFI"
)

// disks reads user data from every CIDATA file system, every config drive and every EFI system partition among the block devices of root, in this
// order. Of the first and the last, the one it returns is absent if there is none. It reads the file systems itself: nothing is mounted, so that the plugin needs
// no right to mount and the kernel parses nothing that came from outside.
func disks(root string) []*found {
	entries, _ := os.ReadDir(filepath.Join(root, "sys/class/block"))
	var cidata, drives, esp []*found
	for _, entry := range entries {
		switch f := device(filepath.Join(root, "dev", entry.Name())); {
		case f == nil:
		case f.source == sourceCIDATA:
			cidata = append(cidata, f)
		case f.source == sourceConfigDrive:
			drives = append(drives, f)
		default:
			esp = append(esp, f)
		}
	}
	if cidata == nil {
		cidata = append(cidata, nowhere(sourceCIDATA, "no disk with this label"))
	}
	if esp == nil {
		esp = append(esp, nowhere(sourceESP, "no EFI system partition"))
	}
	return slices.Concat(cidata, drives, esp)
}

// device reads one block device; nil if it is none of them.
func device(path string) *found {
	volume, err := openVolume(path)
	if err != nil || volume == nil {
		return nil
	}
	defer volume.Close()
	f := &found{source: sourceESP, name: espFile}
	switch {
	case strings.EqualFold(volume.label, labelCIDATA):
		f.source, f.name = sourceCIDATA, cidataFile
	case strings.EqualFold(volume.label, labelConfigDrive):
		f.source, f.name = sourceConfigDrive, configDriveFile
	case volume.iso:
		return nil
	}
	f.id, f.missing = f.source+"-"+filepath.Base(path), "no file "+f.name
	files, err := volume.open()
	if err == nil && f.source == sourceESP {
		if _, err := files.ReadDir(espDir); err != nil {
			return nil
		}
	}
	if err == nil {
		f.data, err = readFrom(files, f.name)
	}
	if err != nil {
		f.err = fmt.Errorf("%s of %s: %w", f.name, path, err)
	}
	return f
}

func readFrom(files filesystem.FileSystem, name string) ([]byte, error) {
	file, err := files.OpenFile(name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "does not exist") {
		return nil, nil // go-diskfs has no sentinel for it on FAT
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSize {
		return nil, errTooBig
	}
	// All at once: a second read of go-diskfs (1.9.4) from the middle of a FAT cluster goes on behind the end of the file.
	data := make([]byte, info.Size())
	_, err = io.ReadFull(file, data)
	return data, err
}

// volume is a FAT or ISO 9660 file system on a block device.
type volume struct {
	*os.File
	size  int64
	label string
	iso   bool
	fat   int // 12, 16, 32
}

// openVolume looks at the superblocks of a device; nil if it holds neither kind.
func openVolume(path string) (*volume, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	v := &volume{File: file}
	if v.size, err = file.Seek(0, io.SeekEnd); err == nil && (v.probeFAT() || v.probeISO()) {
		return v, nil
	}
	file.Close()
	return nil, err
}

// probeFAT reads the boot sector. Source: Microsoft's FAT specification (fatgen103), "Boot Sector and BPB".
func (v *volume) probeFAT() bool {
	var sector [512]byte
	if _, err := v.ReadAt(sector[:], 0); err != nil || sector[510] != 0x55 || sector[511] != 0xaa {
		return false
	}
	switch {
	case string(sector[82:90]) == "FAT32   ":
		v.fat, v.label = 32, string(sector[71:82])
	case string(sector[54:62]) == "FAT16   ":
		v.fat, v.label = 16, string(sector[43:54])
	case string(sector[54:62]) == "FAT12   ":
		v.fat, v.label = 12, string(sector[43:54])
	default:
		return false
	}
	v.label = strings.TrimRight(v.label, " \x00")
	return binary.LittleEndian.Uint16(sector[11:13]) != 0
}

// probeISO reads the primary volume descriptor: ECMA-119, 8.4.
func (v *volume) probeISO() bool {
	var descriptor [72]byte
	if _, err := v.ReadAt(descriptor[:], 16*2048); err != nil || string(descriptor[1:6]) != "CD001" {
		return false
	}
	v.iso, v.label = true, strings.TrimRight(string(descriptor[40:72]), " \x00") // some writers pad with NUL
	return true
}

func (v *volume) open() (filesystem.FileSystem, error) {
	storage := readOnly{v.File}
	switch {
	case v.iso:
		return iso9660.Read(storage, v.size, 0, 0)
	case v.fat == 32:
		return fat32.Read(storage, v.size, 0, 0)
	case v.fat == 16:
		return fat16.Read(storage, v.size, 0, 0)
	default:
		return fat12.Read(storage, v.size, 0, 0)
	}
}

// readOnly is a backend.Storage over an open device.
type readOnly struct{ *os.File }

func (r readOnly) Sys() (*os.File, error)                  { return r.File, nil }
func (r readOnly) Writable() (backend.WritableFile, error) { return nil, backend.ErrIncorrectOpenMode }
func (r readOnly) Path() string                            { return r.Name() }
