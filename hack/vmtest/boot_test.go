package vmtest

import (
	"testing"

	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Every other output boots too, and the node answers. (TestNode boots the raw image, TestURLWithItsDigest the kernel and the initramfs.)
func TestOutputsBoot(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		o    Options
	}{
		{"qcow2 in 256 MiB", Options{Format: "qcow2", Memory: 256}},
		{"ISO", Options{Format: "iso"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := Start(t, tc.o)
			n.Ready(t)
			n.PressPower(t)
		})
	}
}

// A node that nobody gave a trust anchor says on the console what to do, and where it has looked. A private key in the kernel's arguments,
// which every process can read, is refused in words.
func TestWithoutUserData(t *testing.T) {
	t.Parallel()
	n := Start(t, Options{Boot: node.Kernel, NoUserData: true, CommandLine: "cosi.userdata=data:,-----BEGIN%20PRIVATE%20KEY-----"})
	n.Expect(t, 0, `user data cmdline: Refused: kernel argument cosi\.userdata holds a private key, which every process could read: use `)
	n.Expect(t, 0, `user data absent: cidata \(no disk with this label\), esp-vda2 \(no file user-data\.yaml\), fw_cfg \(no file opt/dev\.cosi/user-data\)`)
	n.Expect(t, 0, `not ready because no client CA`)
	n.PressPower(t)
}
