package qemu

import (
	"fmt"
	"path/filepath"
	"strings"
)

// UserDataFile is the fw_cfg file that nodes read user data from.
const UserDataFile = "opt/dev.cosi/user-data"

// Machine describes a virtual machine of the architecture of the host that it runs on. It boots Kernel if that is set, else by its
// firmware, UEFI or BIOS, from the first of NetworkBoot, CDROM and Disks. There is a BIOS on amd64 alone.
type Machine struct {
	Memory int // MiB; 0 is 1024

	Kernel, Initrd, CommandLine string

	BIOS bool // the firmware is SeaBIOS
	// NetworkBoot is a file that the firmware, or iPXE in the NIC's ROM, boots over the network; it finds those beside it there, too.
	NetworkBoot string

	Disks []Disk
	CDROM string

	// Network gives it one NIC ("net0") behind QEMU's user-mode network, which has a DHCP server.
	Network bool
	Forward []Forward
	Backend string // connects the NIC to another netdev, which Extra brings; "" is "net0"

	UserData string // a file, handed in as fw_cfg UserDataFile

	HotplugPorts int  // PCIe ports "port0"… to plug devices into while it runs
	USB          bool // a USB controller, "usb"

	Plugin   string // a TCG plugin with its options
	NoReboot bool   // a reboot ends the VM
	Extra    []string
}

// Disk is a virtio disk, or a USB stick. Its ID names the device "ID" and its backend "ID-drive".
type Disk struct {
	ID       string
	File     string
	Format   string // "raw" or "qcow2"
	Snapshot bool   // the guest's writes are thrown away; not for a disk that is plugged in later
	ReadOnly bool
	Stick    bool // a USB stick; Machine.USB has to be set
	// Log is an empty file in which each of the guest's writes and flushes is recorded, in the order of completion (QEMU's blklogwrites);
	// hack/blklog reads it. The disk is raw, there from the start, and keeps what is written.
	Log string
}

// Forward is a TCP port of the host's loopback that leads to one of the guest.
type Forward struct{ Host, Guest int }

// Args returns QEMU's arguments for m on h. The monitor is on file descriptor 3.
func (m Machine) Args(h *Host) ([]string, error) {
	for _, d := range m.Disks {
		if d.Log != "" && (d.Format != "raw" || d.Snapshot || d.ReadOnly) {
			return nil, fmt.Errorf("disk %q: only writes that stay on a raw disk are recorded", d.ID)
		}
	}
	p, err := platformOf(h.Arch)
	if err != nil {
		return nil, err
	}
	var a args
	a.add("-M", p.board, "-nodefaults", "-display", "none", "-m", fmt.Sprint(or(m.Memory, 1024)))
	if h.KVM && m.Plugin == "" {
		a.add("-accel", "kvm", "-cpu", "host", "-smp", "2")
	} else {
		// One processor: with two, TCG is slower and guests are less reliable.
		a.add("-accel", "tcg", "-cpu", p.cpu, "-smp", "1")
	}
	a.add("-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial")
	a.add("-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control")
	a.add("-device", "virtio-rng-pci")
	if m.Plugin != "" {
		a.add("-plugin", m.Plugin)
	}
	if m.NoReboot {
		a.add("-no-reboot")
	}
	if err := a.boot(h, p, m); err != nil {
		return nil, err
	}
	a.devices(p, m)
	return append(a, m.Extra...), nil
}

type args []string

func (a *args) add(s ...string) { *a = append(*a, s...) }

func (a *args) boot(h *Host, p platform, m Machine) error {
	if m.Kernel != "" {
		a.add("-kernel", m.Kernel, "-append", m.CommandLine)
		if m.Initrd != "" {
			a.add("-initrd", m.Initrd)
		}
		if p.acpi {
			return nil
		}
		// The firmware finds the kernel by itself.
	}
	if m.BIOS {
		if !p.bios {
			return fmt.Errorf("%s has no BIOS: it boots by UEFI", h.Arch)
		}
		return nil // QEMU's own
	}
	if h.Code == "" {
		return fmt.Errorf("no UEFI firmware (%s) on this host: hack/setup %s installs it", p.uefi, p.goal)
	}
	a.add("-drive", "if=pflash,format=raw,readonly=on,file="+comma(h.Code))
	// The variables are as new at each start.
	a.add("-drive", "if=pflash,format=raw,snapshot=on,file="+comma(h.Vars))
	return nil
}

func (a *args) devices(p platform, m Machine) {
	if m.USB {
		a.add("-device", "qemu-xhci,id=usb")
	}
	for i, d := range m.Disks {
		device := fmt.Sprintf("%s,id=%s,drive=%s-drive,serial=%s,bootindex=%d", d.driver(), d.ID, d.ID, d.ID, i+1)
		if d.Log != "" {
			a.recorded(d)
			// The guest sees a disk that loses what was not flushed. With one queue it flushes once at a time, and the record's own count of
			// entries only grows.
			device += ",write-cache=on,num-queues=1"
		} else {
			a.drive(d)
		}
		a.add("-device", device)
	}
	if m.CDROM != "" {
		a.add("-drive", "if=none,id=cdrom-drive,media=cdrom,format=raw,readonly=on,file="+comma(m.CDROM))
		a.add(p.cdrom...)
	}
	if m.Network {
		net := "user,id=net0"
		for _, f := range m.Forward {
			net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
		}
		nic := fmt.Sprintf("virtio-net-pci,id=nic0,netdev=%s", or(m.Backend, "net0"))
		// iPXE in the ROM would give a unified kernel image its name in place of its arguments; the firmware does not.
		if m.NetworkBoot == "" || !m.BIOS && strings.HasSuffix(m.NetworkBoot, ".efi") {
			nic += ",romfile="
		}
		if m.NetworkBoot != "" {
			net += fmt.Sprintf(",tftp=%s,bootfile=%s", comma(filepath.Dir(m.NetworkBoot)), comma(filepath.Base(m.NetworkBoot)))
			nic += ",bootindex=0"
		}
		a.add("-netdev", net, "-device", nic)
	}
	if m.UserData != "" {
		a.add("-fw_cfg", "name="+UserDataFile+",file="+comma(m.UserData))
	}
	for i := range m.HotplugPorts {
		a.add("-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d,slot=%d", i, i+1, i+1))
	}
}

func (d Disk) driver() string {
	if d.Stick {
		return "usb-storage,bus=usb.0"
	}
	return "virtio-blk-pci"
}

func (a *args) drive(d Disk) {
	drive := fmt.Sprintf("if=none,id=%s-drive,format=%s,file=%s", d.ID, d.Format, comma(d.File))
	if d.Snapshot {
		drive += ",snapshot=on"
	}
	if d.ReadOnly {
		drive += ",readonly=on"
	}
	a.add("-drive", drive)
}

// recorded puts the recorder above the file. It sees the guest's flushes; below it they cost time and show nothing, as the host does
// not lose its power.
func (a *args) recorded(d Disk) {
	a.add("-blockdev", fmt.Sprintf("driver=file,node-name=%s-file,filename=%s,cache.no-flush=on", d.ID, comma(d.File)))
	a.add("-blockdev", fmt.Sprintf("driver=file,node-name=%s-log,filename=%s,cache.no-flush=on", d.ID, comma(d.Log)))
	a.add("-blockdev", fmt.Sprintf("driver=blklogwrites,node-name=%s-drive,file=%s-file,log=%s-log", d.ID, d.ID, d.ID))
}

// comma escapes a value in QEMU's option lists.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
