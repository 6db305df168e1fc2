package vmtest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// installing is what "make test-upgrade" calls TestInstallation.
const installing = "install"

// TestInstallation: a node that is booted from a CD installs what the user data says on an empty disk, by UEFI, and runs from that, with the same user
// data; booted from the CD again it leaves the disk alone; and a BIOS boots what is installed, too.
func TestInstallation(t *testing.T) {
	if wanted := strings.Fields(os.Getenv("COSI_TEST_UPGRADE")); !slices.Contains(wanted, "all") && !slices.Contains(wanted, installing) {
		t.Skip("make test-upgrade runs it: it boots a node four times")
	}
	vmtest.Parallel(t, 200)
	vmtest.Host(t)
	documents := kept("userdata") + `---
metadata: {type: UpgradePolicies.machine.cosi.dev, id: node}
spec: {allow_unsigned: true}
---
metadata: {type: Installations.machine.cosi.dev, id: here}
spec: {disk: {serial: target}, medium: true}
`

	disk := filepath.Join(t.TempDir(), "target.raw")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 2*gib); err != nil {
		t.Fatal(err)
	}
	target := qemu.Disk{ID: "target", File: disk, Format: "raw"}
	k := &keeper{identity: vmtest.Identity(t)}

	// The firmware tries the disk first, and then the CD.
	k.Node = vmtest.Start(t, vmtest.Options{
		NoImage: true, Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target},
		Extra: []string{"-drive", "if=none,id=cd-drive,media=cdrom,format=raw,readonly=on,file=" + vmtest.Image(t, "base", "iso"),
			"-device", "ide-cd,drive=cd-drive,bootindex=9"},
	})
	k.Expect(t, 0, `upgrade: installation here: Rebooting`)
	k.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	k.runsInstalled(t)
	k.Apply(t, kept("acknowledged"))
	k.PressPower(t)

	other := qemu.Disk{ID: "other", File: filepath.Join(t.TempDir(), "other.raw"), Format: "raw"}
	if err := os.WriteFile(other.File, make([]byte, 8*mib), 0o600); err != nil {
		t.Fatal(err)
	}
	k.Node = vmtest.Start(t, vmtest.Options{Format: "iso", Boot: node.BIOS, Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target, other}})
	k.Ready(t)
	is := k.refused(t, "here")
	if !strings.Contains(is.GetMessage(), "/dev/vda (2.0 GiB) holds COSI ") || is.GetFingerprint() == "" || !strings.Contains(is.GetMessage(), "fingerprint: "+is.GetFingerprint()) {
		t.Errorf("once more: %v", is)
	}
	k.Apply(t, "metadata: {type: Installations.machine.cosi.dev, id: any}\nspec: {disk: {transport: virtio}, medium: true}\n")
	if is := k.refused(t, "any"); !strings.Contains(is.GetMessage(), "2 disks match, and exactly one must: /dev/vda (2.0 GiB), /dev/vdb (8.0 MiB)") {
		t.Errorf("with two disks: %v", is)
	}
	k.PressPower(t)

	k.Node = vmtest.Start(t, vmtest.Options{NoImage: true, Boot: node.BIOS, Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target}})
	k.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	k.runsInstalled(t)
	if !k.has(t, "acknowledged") {
		t.Error("what was acknowledged is gone")
	}
	k.PressPower(t)
}

// runsInstalled fails the test unless the node runs from the disk that it was installed on, with its user data.
func (k *keeper) runsInstalled(t *testing.T) {
	t.Helper()
	k.Ready(t)
	k.Expect(t, 0, `upgrade: installation here: Installed`)
	if !k.state(t).GetDurable() || !k.has(t, "userdata") {
		t.Errorf("the state: %v, user data %v", k.state(t), k.has(t, "userdata"))
	}
	e := &machinepb.BootEntry{}
	if k.Get(t, "bootentries", "root-a", e); e.GetState() != "Good" || !e.GetRunning() {
		t.Errorf("slot A: %v", e)
	}
}

// refused waits until an Installation is refused, and returns its status.
func (k *keeper) refused(t *testing.T, id string) *machinepb.InstallationStatus {
	t.Helper()
	is := &machinepb.InstallationStatus{}
	for ctx := k.Patience(t, time.Minute); is.GetReason() != "Refused"; time.Sleep(100 * time.Millisecond) {
		if k.Get(t, "installationstatuses", id, is); ctx.Err() != nil {
			t.Fatalf("installation %s is not refused: %v", id, is)
		}
	}
	return is
}
