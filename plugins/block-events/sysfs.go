package blockevents

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
)

// sector is the unit of sizes in /sys/class/block, whatever the device's blocks are.
const sector = 512

// world is what there is, by the kernel's names.
type world struct {
	disks      map[string]*storagepb.Disk
	partitions map[string]*storagepb.Partition
}

// look reads all block devices below sys. One that goes while it is read, or is not whole yet, is left out: the kernel rings for that, too.
func look(sys string) (world, error) {
	w := world{map[string]*storagepb.Disk{}, map[string]*storagepb.Partition{}}
	class := filepath.Join(sys, "class", "block")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil // no block device has come yet
	}
	if err != nil {
		return w, err
	}
	for _, e := range entries {
		path, err := filepath.EvalSymlinks(filepath.Join(class, e.Name()))
		if err != nil {
			continue
		}
		d := attributes{path}
		variables := d.variables()
		major, minor, ok := strings.Cut(d.text("dev"), ":")
		if !ok || variables["DEVNAME"] == "" {
			continue
		}
		// The kernel writes ! in names below /sys for / below /dev.
		node := "/dev/" + variables["DEVNAME"]
		if d.has("partition") {
			w.partitions[e.Name()] = &storagepb.Partition{
				Device: node, Major: uint32(parse(major)), Minor: uint32(parse(minor)), Disk: filepath.Base(filepath.Dir(path)),
				Number: uint32(d.number("partition")), Start: d.number("start") * sector, Size: d.number("size") * sector, ReadOnly: d.flag("ro"),
				Label: variables["PARTNAME"], Uuid: variables["PARTUUID"],
			}
			continue
		}
		// The queue comes last: without it the kernel is still at it, and rings when it has done.
		if !d.has("queue/logical_block_size") {
			continue
		}
		w.disks[e.Name()] = &storagepb.Disk{
			Device: node, Major: uint32(parse(major)), Minor: uint32(parse(minor)), Size: d.number("size") * sector,
			LogicalBlockSize: uint32(d.number("queue/logical_block_size")), PhysicalBlockSize: uint32(d.number("queue/physical_block_size")),
			ReadOnly: d.flag("ro"), Removable: d.flag("removable"), Rotational: d.flag("queue/rotational"),
			Transport: transport(e.Name(), path), Model: d.first("device/model", "device/name"), Serial: d.serial(),
			Wwid: d.first("wwid", "device/wwid"), Diskseq: d.number("diskseq"), SysPath: strings.TrimPrefix(path, filepath.Clean(sys)),
		}
	}
	return w, nil
}

// attributes are the files of a device's directory below /sys. One that is not there, or has gone, is empty.
type attributes struct{ dir string }

func (a attributes) text(name string) string {
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		return ""
	}
	// Firmware pads with blanks, and some with zeros.
	return strings.ToValidUTF8(strings.Trim(string(data), " \t\n\x00"), "\uFFFD")
}

func (a attributes) has(name string) bool {
	_, err := os.Lstat(filepath.Join(a.dir, name))
	return err == nil
}

// first is the first of several attributes that is not empty: kinds of devices name the same thing differently.
func (a attributes) first(names ...string) string {
	for _, name := range names {
		if text := a.text(name); text != "" {
			return text
		}
	}
	return ""
}

func parse(text string) uint64 {
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (a attributes) number(name string) uint64 { return parse(a.text(name)) }
func (a attributes) flag(name string) bool     { return a.text(name) == "1" }

// variables are those of the device's uevent.
func (a attributes) variables() map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(a.text("uevent")) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			all[key] = value
		}
	}
	return all
}

// serial is the disk's own serial number: of virtio and nvme an attribute, of SCSI page 80 of the vital product data (SPC-4, 7.8.16: four
// bytes of header, then the text), of a USB stick without one that of the USB device.
func (a attributes) serial() string {
	if text := a.first("serial", "device/serial"); text != "" {
		return text
	}
	if page, err := os.ReadFile(filepath.Join(a.dir, "device", "vpd_pg80")); err == nil && len(page) > 4 {
		if text := strings.Trim(strings.ToValidUTF8(string(page[4:]), ""), " \x00"); text != "" {
			return text
		}
	}
	for dir := filepath.Dir(a.dir); strings.Contains(dir, "/usb"); dir = filepath.Dir(dir) {
		if text := (attributes{dir}).text("serial"); text != "" {
			return text
		}
	}
	return ""
}

// transport tells how a disk is reached, from its name and its place in the tree of devices.
func transport(name, path string) string {
	for _, t := range []struct{ prefix, transport string }{
		{"vd", "virtio"}, {"nvme", "nvme"}, {"mmcblk", "mmc"}, {"xvd", "xen"}, {"loop", "loop"}, {"dm-", "dm"}, {"md", "md"}, {"zram", "zram"},
	} {
		if strings.HasPrefix(name, t.prefix) {
			return t.transport
		}
	}
	switch {
	case strings.Contains(path, "/usb"):
		return "usb"
	case strings.Contains(path, "/ata"):
		return "ata"
	case strings.Contains(path, "/host"):
		return "scsi"
	}
	return ""
}
