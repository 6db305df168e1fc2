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
	host := &Host{Program: "qemu-system-x86_64", Code: "/fw/code.fd", Vars: "/fw/vars.fd"}
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
		{"bios-network", host, Machine{BIOS: true, Network: true, NetworkBoot: "/a,b/cosi.ipxe"}},
		{"uefi-iso-kvm", &kvm, Machine{CDROM: "cosi.iso", Memory: 512}},
		{"direct-counted", &kvm, Machine{Kernel: "vmlinuz", Initrd: "initramfs", CommandLine: "console=ttyS0 quiet", Plugin: "./count.so,out=f", NoReboot: true, Extra: []string{"-S"}}},
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

func TestArgsWantFirmware(t *testing.T) {
	if _, err := (Machine{}).Args(&Host{}); err == nil || !strings.Contains(err.Error(), "OVMF") {
		t.Errorf("Args without firmware = %v", err)
	}
}

func TestArgsRecordOnlyWhatStays(t *testing.T) {
	for _, d := range []Disk{{Format: "qcow2"}, {Format: "raw", Snapshot: true}, {Format: "raw", ReadOnly: true}} {
		d.ID, d.Log = "system", "log"
		if _, err := (Machine{Kernel: "vmlinuz", Disks: []Disk{d}}).Args(&Host{}); err == nil || !strings.Contains(err.Error(), `disk "system"`) {
			t.Errorf("Args with %+v = %v", d, err)
		}
	}
}
