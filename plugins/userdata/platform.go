package userdata

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// platform is who runs a virtual machine, and has its own way to hand user data in.
type platform string

// The platforms that a definition may name.
const (
	platformAWS       platform = "aws"
	platformAzure     platform = "azure"
	platformGCP       platform = "gcp"
	platformOpenStack platform = "openstack"
	platformVMware    platform = "vmware"
)

// dmi says of which platform a machine is when a file of sys/class/dmi/id begins with a text. Sources: AWS, "Detect whether a host is an EC2
// instance"; Azure, the chassis asset tag that its agent asks for; Google, "Detect if a VM is running in Compute Engine"; Nova's and its
// vendors' names; VMware KB 1009458.
var dmi = []struct {
	file, prefix string
	platform     platform
}{
	{"sys_vendor", "Amazon EC2", platformAWS},
	{"product_name", "Google Compute Engine", platformGCP},
	{"chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", platformAzure},
	{"product_name", "OpenStack", platformOpenStack},
	{"sys_vendor", "OpenStack", platformOpenStack},
	{"chassis_asset_tag", "OpenTelekomCloud", platformOpenStack},
	{"chassis_asset_tag", "SAP CCloud VM", platformOpenStack},
	{"chassis_asset_tag", "HUAWEICLOUD", platformOpenStack},
	{"sys_vendor", "VMware", platformVMware},
}

// findPlatform returns the platform that the image's definition names or, named being false then, the one that the machine says it is of;
// "" if it is of none. A node asks no other's services: on a network without them each would cost it a wait.
func findPlatform(root string) (p platform, named bool) {
	var image struct {
		Platform platform `json:"platform"`
	}
	data, err := os.ReadFile(filepath.Join(root, "usr/lib/cosi/image.json"))
	if err == nil && json.Unmarshal(data, &image) == nil && image.Platform != "" {
		return image.Platform, true
	}
	for _, sign := range dmi {
		text, err := os.ReadFile(filepath.Join(root, "sys/class/dmi/id", sign.file))
		if err == nil && strings.HasPrefix(string(text), sign.prefix) {
			return sign.platform, false
		}
	}
	return "", false
}
