package userdata

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/cosi-os/cosi/plugins/internal/secureboot"
)

// secureBoot says in words that the machine is under Secure Boot, or may be; "" if it is not.
func secureBoot(root string) string {
	switch secureboot.Of(root) {
	case secureboot.Enabled:
		return "under Secure Boot"
	case secureboot.Unknown:
		return "while it is not known whether Secure Boot is on"
	}
	return ""
}

// diskAllowed refuses user data on a disk or a medium, which is a source's, under Secure Boot unless the image's definition allows it: it is
// not signed, and anybody who comes to the machine can write a file beside the boot loader or plug in a disk with the right label. What it
// says lets people in. The ESP is refused, too, on a node that had a trust anchor already.
func (c *controller) diskAllowed(source string) error {
	if source == sourceESP && *c.trusted {
		return refused("user data on the ESP is for the first boot: this node has a trust anchor already, so the file is not read")
	}
	reason := secureBoot(c.root)
	if reason == "" {
		return nil
	}
	var image struct {
		Disks bool `json:"disk_user_data_under_secure_boot"`
	}
	data, err := os.ReadFile(filepath.Join(c.root, "usr/lib/cosi/image.json"))
	if err == nil && json.Unmarshal(data, &image) == nil && image.Disks {
		return nil
	}
	return refused("user data on a disk is not read %s, unless the image's definition says user_data.disks_under_secure_boot: true", reason)
}
