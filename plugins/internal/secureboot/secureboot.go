// Package secureboot finds out whether a machine is under Secure Boot, as the kernel was told. The plugins userdata and attestation ask.
package secureboot

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// efiDir is there when the machine was booted by EFI.
	efiDir = "sys/firmware/efi"
	// bootParams is what the kernel was handed at its start. Its EFI stub asks the firmware for the variable SecureBoot while nothing
	// else runs yet and leaves the answer there: no file system for EFI variables is needed, which would be one more module to load and
	// every variable of the firmware to read. Only x86 has it.
	bootParams = "sys/kernel/boot_params/data"
	// offset is the place of secure_boot in it: Documentation/arch/x86/zero-page.rst.
	offset = 0x1ec
	// deviceTree is what arm64's kernel was handed. Debian's EFI stub leaves the answer there, in a property of the node /chosen, as a word.
	deviceTree = "sys/firmware/fdt"
	answer     = "linux,uefi-secure-boot"
	// Values of enum efi_secureboot_mode, linux/efi.h. The others are unset, and unknown: the firmware answered with an error.
	disabled = 2
	enabled  = 3
)

// State is whether a machine is under Secure Boot.
type State string

const (
	Enabled     State = "Enabled"
	Disabled    State = "Disabled"
	Unsupported State = "Unsupported" // no EFI has booted it
	Unknown     State = "Unknown"     // it is not known: whoever asks takes it for Enabled
)

// Of is the state of the machine whose root is at root. A machine that was booted by EFI is under Secure Boot, or may be, unless it is known that it is
// not.
func Of(root string) State {
	if _, err := os.Stat(filepath.Join(root, efiDir)); errors.Is(err, fs.ErrNotExist) {
		return Unsupported
	}
	switch mode(root) {
	case disabled:
		return Disabled
	case enabled:
		return Enabled
	default:
		return Unknown
	}
}

// mode is what the EFI stub has left; 0 if it has left nothing.
func mode(root string) uint32 {
	if data, err := os.ReadFile(filepath.Join(root, bootParams)); err == nil && len(data) > offset {
		return uint32(data[offset])
	}
	if data, err := os.ReadFile(filepath.Join(root, deviceTree)); err == nil {
		if value := chosen(data, answer); len(value) == 4 {
			return binary.BigEndian.Uint32(value)
		}
	}
	return 0
}
