package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/tools/qemu"
)

// Boot is how an image is started.
type Boot string

// UEFI and BIOS boot what would be booted on hardware. Kernel has QEMU load the kernel and the initramfs that
// lie beside the image.
const (
	UEFI   Boot = "uefi"
	BIOS   Boot = "bios"
	Kernel Boot = "kernel"
)

// ParseBoot reads a Boot.
func ParseBoot(s string) (Boot, error) {
	switch b := Boot(s); b {
	case UEFI, BIOS, Kernel:
		return b, nil
	}
	return "", fmt.Errorf("%q is none of %q, %q and %q", s, UEFI, BIOS, Kernel)
}

// Arch returns the architecture of the machines that image is for, or, of a script of iPXE, that the image beside it is for.
func Arch(image string) (string, error) {
	if base, is := strings.CutSuffix(image, ".ipxe"); is {
		image = base + ".efi"
	}
	return inspect.Arch(image)
}

// machine returns a machine that boots image: a .raw or .qcow2 as a disk, an .iso as a CD, each also as a USB stick; an .efi or .ipxe over
// the network. What the guest writes to it is thrown away. Without an image the machine boots from a device that others bring.
func machine(image string, boot Boot, stick bool) (qemu.Machine, error) {
	m := qemu.Machine{BIOS: boot == BIOS, USB: stick}
	if image == "" {
		return m, nil
	}
	if _, err := os.Stat(image); err != nil {
		return m, err
	}
	ext := filepath.Ext(image)
	switch ext {
	case ".raw", ".qcow2":
		m.Disks = []qemu.Disk{{ID: "system", File: image, Format: ext[1:], Snapshot: true, Stick: stick}}
	case ".iso":
		if stick {
			m.Disks = []qemu.Disk{{ID: "system", File: image, Format: "raw", Stick: true}}
		} else {
			m.CDROM = image
		}
	case ".efi", ".ipxe":
		m.NetworkBoot = image
	default:
		return m, fmt.Errorf("%s: not a .raw, .qcow2, .iso, .efi or .ipxe", image)
	}
	if boot != Kernel {
		return m, nil
	}
	base := strings.TrimSuffix(image, ext)
	m.Kernel, m.Initrd = base+".vmlinuz", base+".initramfs"
	var err error
	m.CommandLine, err = commandLine(base + ".manifest.json")
	return m, err
}

// commandLine reads the arguments that the image's kernel is started with elsewhere.
func commandLine(manifest string) (string, error) {
	data, err := os.ReadFile(manifest)
	if err != nil {
		return "", err
	}
	var m struct {
		CommandLine string `json:"command_line"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", fmt.Errorf("%s: %w", manifest, err)
	}
	return m.CommandLine, nil
}
