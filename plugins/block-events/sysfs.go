package blockevents

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/sysfs"
)

// sector is the unit of sizes in /sys/class/block, whatever the device's blocks are.
const sector = 512

// world is what there is, by the kernel's names.
type world struct {
	disks      map[string]*storagepb.Disk
	partitions map[string]*storagepb.Partition
}

// look reads all block devices below sys.
func look(sys string) (world, error) {
	w := world{map[string]*storagepb.Disk{}, map[string]*storagepb.Partition{}}
	entries, err := os.ReadDir(filepath.Join(sys, "class", "block"))
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil // no block device has come yet
	}
	if err != nil {
		return w, err
	}
	for _, e := range entries {
		w.look(sys, e.Name())
	}
	return w, nil
}

// look reads the device of that name again. One that goes while it is read, or is not whole yet, is left out: the kernel rings for that, too.
func (w world) look(sys, name string) {
	delete(w.disks, name)
	delete(w.partitions, name)
	path, err := filepath.EvalSymlinks(filepath.Join(sys, "class", "block", name))
	if err != nil {
		return
	}
	d := sysfs.Attributes{Dir: path}
	variables := d.Variables()
	major, minor, ok := strings.Cut(d.Text("dev"), ":")
	if !ok || variables["DEVNAME"] == "" {
		return
	}
	// The kernel writes ! in names below /sys for / below /dev.
	node := "/dev/" + variables["DEVNAME"]
	if d.Has("partition") {
		w.partitions[name] = &storagepb.Partition{
			Device: node, Major: uint32(sysfs.Parse(major)), Minor: uint32(sysfs.Parse(minor)), Disk: filepath.Base(filepath.Dir(path)),
			Number: uint32(d.Number("partition")), Start: d.Number("start") * sector, Size: d.Number("size") * sector, ReadOnly: d.Flag("ro"),
			Label: variables["PARTNAME"], Uuid: variables["PARTUUID"],
		}
		return
	}
	// The queue comes last: without it the kernel is still at it, and rings when it has done.
	if !d.Has("queue/logical_block_size") {
		return
	}
	w.disks[name] = &storagepb.Disk{
		Device: node, Major: uint32(sysfs.Parse(major)), Minor: uint32(sysfs.Parse(minor)), Size: d.Number("size") * sector,
		LogicalBlockSize: uint32(d.Number("queue/logical_block_size")), PhysicalBlockSize: uint32(d.Number("queue/physical_block_size")),
		ReadOnly: d.Flag("ro"), Removable: d.Flag("removable"), Rotational: d.Flag("queue/rotational"),
		Transport: transport(name, path), Model: d.First("device/model", "device/name"), Serial: serial(d),
		Wwid: d.First("wwid", "device/wwid"), Diskseq: d.Number("diskseq"), SysPath: strings.TrimPrefix(path, filepath.Clean(sys)),
		MapperName: d.Text("dm/name"),
	}
}

// serial is the disk's own serial number: of virtio and nvme an attribute, of SCSI page 80 of the vital product data (SPC-4, 7.8.16: four
// bytes of header, then the text), of a USB stick without one that of the USB device.
func serial(a sysfs.Attributes) string {
	if text := a.First("serial", "device/serial"); text != "" {
		return text
	}
	if page, err := os.ReadFile(filepath.Join(a.Dir, "device", "vpd_pg80")); err == nil && len(page) > 4 {
		if text := strings.Trim(strings.ToValidUTF8(string(page[4:]), ""), " \x00"); text != "" {
			return text
		}
	}
	for dir := filepath.Dir(a.Dir); strings.Contains(dir, "/usb"); dir = filepath.Dir(dir) {
		if text := (sysfs.Attributes{Dir: dir}).Text("serial"); text != "" {
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
