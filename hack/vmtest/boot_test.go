package vmtest

import (
	"os"
	"testing"

	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// boots are the ways in which outputs boot that no other test goes. (TestNode boots the raw image by UEFI, TestURLWithItsDigest the kernel
// and the initramfs.)
var boots = []struct {
	name   string
	always bool // else with COSI_TEST_BOOTS=all: make test-boot
	again  bool // and again from the disk to which the first boot has added a partition
	o      Options
}{
	{"qcow2 in 256 MiB by a BIOS", true, false, Options{Format: "qcow2", Memory: 256, Boot: node.BIOS}},
	{"qcow2 in 256 MiB by UEFI", false, false, Options{Format: "qcow2", Memory: 256}},
	{"raw by a BIOS", false, true, Options{Boot: node.BIOS}},
	{"CD by UEFI", true, false, Options{Format: "iso"}},
	{"CD by a BIOS", false, false, Options{Format: "iso", Boot: node.BIOS}},
	{"stick by UEFI", false, false, Options{Format: "iso", Stick: true}},
	{"stick by a BIOS", false, false, Options{Format: "iso", Stick: true, Boot: node.BIOS}},
	{"network by UEFI", false, false, Options{Format: "efi"}},
	{"network by iPXE and a BIOS", false, false, Options{Format: "ipxe", Boot: node.BIOS}},
}

// Every output boots by every firmware that it is for and that there is, and the node answers those whom its user data lets in.
func TestOutputsBoot(t *testing.T) {
	Parallel(t, 40)
	for _, tc := range boots {
		if !tc.always && os.Getenv("COSI_TEST_BOOTS") != "all" {
			continue
		}
		if tc.o.Boot == node.BIOS && Arch() != qemu.AMD64 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			n := Start(t, tc.o)
			n.Ready(t)
			if tc.again {
				from := n.Console.Position()
				if err := n.Monitor.Execute(n.Patience(t, boot), "system_reset", nil, nil); err != nil {
					t.Fatal(err)
				}
				n.Expect(t, from, `engine: COSI`)
				n.Ready(t)
			}
			n.PressPower(t)
		})
	}
}

// A node that nobody gave a trust anchor says on the console what to do, and where it has looked. A private key in the kernel's arguments,
// which every process can read, is refused in words.
func TestWithoutUserData(t *testing.T) {
	Parallel(t, 15)
	n := Start(t, Options{Boot: node.Kernel, NoUserData: true, CommandLine: "cosi.userdata=data:,-----BEGIN%20PRIVATE%20KEY-----"})
	n.Expect(t, 0, `user data cmdline: Refused: kernel argument cosi\.userdata holds a private key, which every process could read: use `)
	n.Expect(t, 0, `user data absent: cidata \(no disk with this label\), esp-vda2 \(no file user-data\.yaml\), fw_cfg \(no file opt/dev\.cosi/user-data\)`)
	n.Expect(t, 0, `not ready because no client CA`)
	n.PressPower(t)
}
