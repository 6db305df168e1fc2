package userdata

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// secureBootVariable is the UEFI global variable SecureBoot: four bytes of attributes, then 1 when it is on (UEFI 2.10, 3.3).
const secureBootVariable = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// espAllowed refuses the ESP on a node that had a trust anchor already, and under Secure Boot unless the image's definition allows it:
// the ESP is the one place that is neither signed nor the owner's alone.
func (c *controller) espAllowed() error {
	if *c.trusted {
		return refused("user data on the ESP is for the first boot: this node has a trust anchor already, so the file is not read")
	}
	value, err := os.ReadFile(filepath.Join(c.root, secureBootVariable))
	if err != nil || len(value) < 5 || value[4] != 1 {
		return nil
	}
	var image struct {
		ESPUserData bool `json:"esp_user_data_under_secure_boot"`
	}
	data, err := os.ReadFile(filepath.Join(c.root, "usr/lib/cosi/image.json"))
	if err == nil && json.Unmarshal(data, &image) == nil && image.ESPUserData {
		return nil
	}
	return refused("user data on the ESP is not read under Secure Boot; an image whose definition says esp_user_data_under_secure_boot: true does")
}
