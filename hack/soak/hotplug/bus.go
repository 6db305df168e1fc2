package hotplug

import (
	"context"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/tools/qemu"
)

// Bus is where disks come and go.
type Bus struct {
	Name string
	// Definition is of an image whose kernel has the drivers, and that has the plugin gauge.
	Definition string
	// Arguments are what a machine needs beside a hot-plug port.
	Arguments []string
	// Port is what disks are plugged into, as qemu.VM.Plug takes it. Without one, media are put into a reader, whose device has the bus's name.
	Port string
	// In and Out are what BlockEvents says.
	In, Out string
	// shows reports whether a disk is that of an id, or has the medium of that id in it.
	shows func(d *storagepb.Disk, id string) bool
	// stays reports whether a disk is the reader, where media make no disk of their own.
	stays func(d *storagepb.Disk) bool
}

// bySerial: a disk that is plugged in has its id for a serial number.
func bySerial(d *storagepb.Disk, id string) bool { return d.GetSerial() == id }

// The buses that there are.
var (
	Virtio = Bus{Name: "virtio", Definition: "test", Port: "port0", In: "Added", Out: "Removed", shows: bySerial}
	SCSI   = Bus{
		Name: "scsi", Definition: "test", Arguments: []string{"-device", "virtio-scsi-pci,id=scsi"}, Port: "scsi", In: "Added", Out: "Removed", shows: bySerial,
	}
	USB = Bus{
		Name: "usb", Definition: "test-metal", Arguments: []string{"-device", "qemu-xhci,id=usbsticks"}, Port: "usbsticks", In: "Added", Out: "Removed", shows: bySerial,
	}
	// SD is a controller of SD cards. It hears of a card by itself, and makes a disk of it. All of QEMU's cards have the same serial number.
	SD = Bus{
		Name: "sd", Definition: "test-metal", Arguments: []string{"-device", "sdhci-pci", "-drive", "if=none,id=slot", "-device", "sd-card,id=sd,drive=slot"},
		In: "Added", Out: "Removed", shows: func(d *storagepb.Disk, _ string) bool { return d.GetTransport() == "mmc" },
	}
	// Reader is a card reader on USB: a disk that stays. The kernel asks it again and again whether it has a medium.
	Reader = Bus{
		Name: "reader", Definition: "test-metal",
		Arguments: []string{
			"-device", "qemu-xhci,id=readers", "-device", "usb-bot,id=bot,bus=readers.0,serial=reader",
			"-drive", "if=none,id=tray", "-device", "scsi-hd,id=reader,bus=bot.0,drive=tray,removable=on",
		},
		In: "Changed", Out: "Changed",
		shows: func(d *storagepb.Disk, _ string) bool { return d.GetSerial() == "reader" && d.GetSize() > 0 },
		stays: func(d *storagepb.Disk) bool { return d.GetSerial() == "reader" },
	}
	// Buses begin with the one whose disk a node may still be finding when it is ready: its coming would be taken for another's.
	Buses = []Bus{Reader, Virtio, SCSI, USB, SD}
)

func (b Bus) in(ctx context.Context, m Machine, d qemu.Disk) error {
	if b.Port == "" {
		return m.Insert(ctx, d, b.Name)
	}
	return m.Plug(ctx, d, b.Port)
}

func (b Bus) out(ctx context.Context, m Machine, id string) error {
	if b.Port == "" {
		return m.Eject(ctx, id, b.Name)
	}
	return m.Unplug(ctx, id)
}
