package userdata

import "testing"

func TestFindPlatform(t *testing.T) {
	const id, image = "sys/class/dmi/id/", "usr/lib/cosi/image.json"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  platform
		named bool
	}{
		{"nothing", nil, "", false},
		{"QEMU", map[string]string{id + "sys_vendor": "QEMU\n", id + "product_name": "Standard PC (Q35 + ICH9, 2009)\n", id + "bios_version": "1.16.3-debian\n"}, "", false},
		{"EC2", map[string]string{id + "sys_vendor": "Amazon EC2\n", id + "product_name": "m7i.large\n"}, platformAWS, false},
		{"Google", map[string]string{id + "sys_vendor": "Google\n", id + "product_name": "Google Compute Engine\n"}, platformGCP, false},
		{"a laptop of Google's", map[string]string{id + "sys_vendor": "Google\n", id + "product_name": "Eve\n"}, "", false},
		{"Azure", map[string]string{id + "sys_vendor": "Microsoft Corporation\n", id + "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"}, platformAzure, false},
		{"Hyper-V at home", map[string]string{id + "sys_vendor": "Microsoft Corporation\n", id + "chassis_asset_tag": "0000\n"}, "", false},
		{"OpenStack", map[string]string{id + "product_name": "OpenStack Nova\n"}, platformOpenStack, false},
		{"a cloud on OpenStack", map[string]string{id + "product_name": "KVM\n", id + "chassis_asset_tag": "HUAWEICLOUD\n"}, platformOpenStack, false},
		{"VMware", map[string]string{id + "sys_vendor": "VMware, Inc.\n"}, platformVMware, false},
		{"the definition has the last word", map[string]string{id + "sys_vendor": "Amazon EC2\n", image: `{"platform": "openstack"}`}, platformOpenStack, true},
		{"the definition says none", map[string]string{id + "sys_vendor": "Amazon EC2\n", image: `{"platform": ""}`}, platformAWS, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for path, content := range c.files {
				put(t, root, path, content)
			}
			if got, named := findPlatform(root); got != c.want || named != c.named {
				t.Errorf("findPlatform = %q, %v; want %q, %v", got, named, c.want, c.named)
			}
		})
	}
}
