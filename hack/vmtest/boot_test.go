package vmtest

import (
	"testing"

	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Every other output boots too, and the node answers. (TestNode boots the raw image.)
func TestOutputsBoot(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
	}{
		{"qcow2", Options{Format: "qcow2"}},
		{"ISO", Options{Format: "iso"}},
		{"kernel", Options{Boot: node.Kernel}},
		{"256MiB", Options{Boot: node.Kernel, Memory: 256}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := Start(t, tc.o)
			n.Ready(t)
			n.PressPower(t)
		})
	}
}

// A node that nobody gave a trust anchor says on the console what to do.
func TestWithoutUserData(t *testing.T) {
	n := Start(t, Options{Boot: node.Kernel, NoUserData: true})
	n.Expect(t, 0, `not ready because no client CA`)
	n.PressPower(t)
}
