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
