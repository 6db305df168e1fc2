package userdata

import (
	"encoding/binary"
	"encoding/json"
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
	// secureBootOffset is the place of secure_boot in it: Documentation/arch/x86/zero-page.rst.
	secureBootOffset = 0x1ec
	// deviceTree is what arm64's kernel was handed. Debian's EFI stub leaves the answer there, in a property of the node /chosen, as a word.
	deviceTree         = "sys/firmware/fdt"
	secureBootProperty = "linux,uefi-secure-boot"
	// Values of enum efi_secureboot_mode, linux/efi.h. The others are unset, and unknown: the firmware answered with an error.
	secureBootDisabled = 2
	secureBootEnabled  = 3
)

// secureBoot says in words that the machine is under Secure Boot, or may be; "" if it is not. A machine that was booted by EFI is, unless
// it is known that it is not.
func secureBoot(root string) string {
	if _, err := os.Stat(filepath.Join(root, efiDir)); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	switch secureBootMode(root) {
	case secureBootDisabled:
		return ""
	case secureBootEnabled:
		return "under Secure Boot"
	default:
		return "while it is not known whether Secure Boot is on"
	}
}

// secureBootMode is what the EFI stub has left; 0 if it has left nothing.
func secureBootMode(root string) uint32 {
	if data, err := os.ReadFile(filepath.Join(root, bootParams)); err == nil && len(data) > secureBootOffset {
		return uint32(data[secureBootOffset])
	}
	if data, err := os.ReadFile(filepath.Join(root, deviceTree)); err == nil {
		if value := chosen(data, secureBootProperty); len(value) == 4 {
			return binary.BigEndian.Uint32(value)
		}
	}
	return 0
}

// espAllowed refuses the ESP on a node that had a trust anchor already, and under Secure Boot unless the image's definition allows it:
// the ESP is the one place that is neither signed nor the owner's alone.
func (c *controller) espAllowed() error {
	if *c.trusted {
		return refused("user data on the ESP is for the first boot: this node has a trust anchor already, so the file is not read")
	}
	reason := secureBoot(c.root)
	if reason == "" {
		return nil
	}
	var image struct {
		ESPUserData bool `json:"esp_user_data_under_secure_boot"`
	}
	data, err := os.ReadFile(filepath.Join(c.root, "usr/lib/cosi/image.json"))
	if err == nil && json.Unmarshal(data, &image) == nil && image.ESPUserData {
		return nil
	}
	return refused("user data on the ESP is not read %s, unless the image's definition says user_data.esp_under_secure_boot: true", reason)
}
