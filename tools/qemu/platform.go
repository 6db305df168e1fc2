package qemu

import (
	"fmt"
	"slices"
)

// Architectures of machines, as Go and Debian call them.
const (
	AMD64 = "amd64"
	ARM64 = "arm64"
)

// platform is what machines of an architecture are made of.
type platform struct {
	program string
	// board is the machine, cpu the processor where it is emulated.
	board, cpu string
	// bios: the board has one beside UEFI.
	bios bool
	// acpi: the board has its ACPI tables from QEMU. Otherwise from its UEFI firmware, without which there is no power button.
	acpi bool
	// cdrom is the drive for CDs, with its bus.
	cdrom []string
	// firmware lists where distributions keep the one for UEFI, called uefi: its code and its variables.
	uefi     string
	firmware [][2]string
	// goal is that of hack/setup which installs program and firmware.
	goal string
}

var platforms = map[string]platform{
	// The processor is what servers of today have, as far as a boot is faster for it: SHA-NI. A QEMU before 8.2 warns that it cannot emulate that.
	AMD64: {
		program: "qemu-system-x86_64", board: "q35", cpu: "Haswell-v4,+sha-ni", bios: true, acpi: true,
		cdrom: []string{"-device", "ide-cd,id=cdrom,drive=cdrom-drive,bootindex=0"},
		uefi:  "OVMF", goal: "run",
		firmware: [][2]string{ // Debian, Fedora, Arch
			{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		},
	},
	// The processor has nothing but what ARMv8.0 has, which all others have, too. The board's interrupts are those of servers, GICv3, unless
	// the host's own are older.
	ARM64: {
		program: "qemu-system-aarch64", board: "virt,gic-version=max", cpu: "cortex-a72",
		cdrom: []string{"-device", "virtio-scsi-pci,id=cdrom-bus", "-device", "scsi-cd,bus=cdrom-bus.0,id=cdrom,drive=cdrom-drive,bootindex=0"},
		uefi:  "AAVMF", goal: "arm64",
		firmware: [][2]string{
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/edk2/aarch64/QEMU_EFI-silent-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		},
	},
}

// platformOf fails if there is none of an architecture.
func platformOf(arch string) (platform, error) {
	p, ok := platforms[arch]
	if !ok {
		return p, fmt.Errorf("no machines of %q, only of %q and %q", arch, AMD64, ARM64)
	}
	return p, nil
}

// find returns the firmware that is here, or nothing.
func (p platform) find() (code, vars string) {
	i := slices.IndexFunc(p.firmware, func(f [2]string) bool { return exists(f[0]) && exists(f[1]) })
	if i < 0 {
		return "", ""
	}
	return p.firmware[i][0], p.firmware[i][1]
}
