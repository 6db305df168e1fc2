package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestArgs(t *testing.T) {
	host := &Host{Arch: AMD64, Program: "qemu-system-x86_64", Code: "/fw/code.fd", Vars: "/fw/vars.fd"}
	arm := &Host{Arch: ARM64, Program: "qemu-system-aarch64", Code: "/fw/code.fd", Vars: "/fw/vars.fd"}
	kvm := *host
	kvm.KVM = true
	for _, tc := range []struct {
		name string
		host *Host
		m    Machine
	}{
		{"uefi-disk", host, Machine{
			Disks:   []Disk{{ID: "system", File: "/a,b/cosi.raw", Format: "raw", Snapshot: true}, {ID: "data", File: "data.ext4", Format: "raw"}},
			Network: true, Forward: []Forward{{50123, 50000}}, UserData: "run/user-data.yaml", HotplugPorts: 2, USB: true,
		}},
		{"uefi-disk-recorded", host, Machine{Disks: []Disk{{ID: "system", File: "/a,b/cosi.raw", Format: "raw", Log: "/a,b/log"}}}},
		{"bios-stick", host, Machine{BIOS: true, USB: true, Disks: []Disk{{ID: "system", File: "cosi.iso", Format: "raw", ReadOnly: true, Stick: true}}}},
		{"uefi-network", host, Machine{Network: true, NetworkBoot: "/a/cosi.efi"}},
		{"bios-network", host, Machine{BIOS: true, Network: true, NetworkBoot: "/a,b/cosi.ipxe"}},
		{"uefi-iso-kvm", &kvm, Machine{CDROM: "cosi.iso", Memory: 512}},
		{"direct-counted", &kvm, Machine{Kernel: "vmlinuz", Initrd: "initramfs", CommandLine: "console=ttyS0 quiet", Plugin: "./count.so,out=f", NoReboot: true, Extra: []string{"-S"}}},
		{"arm64-uefi-iso", arm, Machine{CDROM: "cosi.iso", Network: true}},
		// Without the firmware it would have no power button.
		{"arm64-direct", arm, Machine{Kernel: "vmlinuz", Initrd: "initramfs", CommandLine: "console=ttyAMA0"}},
	} {
		argv, err := tc.m.Args(tc.host)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(strings.Join(argv, " "), " -", "\n-") + "\n"
		golden := filepath.Join("testdata", tc.name+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: Args:\n%s\nwant:\n%s", tc.name, got, want)
		}
	}
}

func TestArgsRefuse(t *testing.T) {
	for _, tc := range []struct {
		host *Host
		m    Machine
		want string
	}{
		{&Host{Arch: AMD64}, Machine{}, "no UEFI firmware (OVMF) on this host: hack/setup run installs it"},
		{&Host{Arch: ARM64}, Machine{Kernel: "vmlinuz"}, "no UEFI firmware (AAVMF) on this host: hack/setup arm64 installs it"},
		{&Host{Arch: ARM64, Code: "c", Vars: "v"}, Machine{BIOS: true}, "arm64 has no BIOS: it boots by UEFI"},
		{&Host{Arch: "vax"}, Machine{}, `no machines of "vax", only of "amd64" and "arm64"`},
	} {
		if _, err := tc.m.Args(tc.host); err == nil || err.Error() != tc.want {
			t.Errorf("Args of %+v on %+v = %v; want %q", tc.m, tc.host, err, tc.want)
		}
	}
}

func TestArgsRecordOnlyWhatStays(t *testing.T) {
	for _, d := range []Disk{{Format: "qcow2"}, {Format: "raw", Snapshot: true}, {Format: "raw", ReadOnly: true}} {
		d.ID, d.Log = "system", "log"
		if _, err := (Machine{Kernel: "vmlinuz", Disks: []Disk{d}}).Args(&Host{Arch: AMD64}); err == nil || !strings.Contains(err.Error(), `disk "system"`) {
			t.Errorf("Args with %+v = %v", d, err)
		}
	}
}
