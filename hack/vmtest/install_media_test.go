package vmtest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// A machine as they stand on desks, with USB and an NVMe disk, boots the ISO from a stick, by UEFI and by a BIOS. The node finds the stick, which is
// what it installs from and never what it installs on, and runs from the disk then.
func TestInstallationFromAStick(t *testing.T) {
	for _, firmware := range []node.Boot{node.UEFI, node.BIOS} {
		t.Run(string(firmware), func(t *testing.T) {
			onlyInstalling(t, 120)
			target := emptyDisk(t, "target")
			// UEFI tries the disk first, and then the stick, which is still there when the disk is booted. QEMU's BIOS tries one disk only, so the
			// stick is that, and is pulled out before the reboot.
			places := map[node.Boot][2]int{node.UEFI: {1, 9}, node.BIOS: {9, 1}}[firmware]
			disk := []string{"-drive", "if=none,id=nvme-drive,format=raw,file=" + target.File, "-device", fmt.Sprintf("nvme,drive=nvme-drive,serial=%s,bootindex=%d", target.ID, places[0])}
			o := vmtest.Options{
				NoImage: true, Boot: firmware, NoReboot: firmware == node.BIOS, USB: true, Identity: vmtest.Identity(t),
				Documents: kept("userdata") + takesAnyVersion + installation("stick", "transport: usb", "medium: true"),
				Extra: append(disk, "-drive", "if=none,id=stick-drive,format=raw,file="+stick(t),
					"-device", fmt.Sprintf("usb-storage,bus=usb.0,drive=stick-drive,serial=stick,bootindex=%d", places[1])),
			}
			k := &keeper{identity: o.Identity, Node: vmtest.Start(t, o)}
			k.Ready(t)
			is := &machinepb.InstallationStatus{}
			k.says(t, "stick", is, func() bool { return is.GetReason() == "Waiting" && strings.Contains(is.GetMessage(), "but the medium") })
			k.Apply(t, installation("here", "min_size: 1048576", "medium: true")) // which is so of both
			k.Expect(t, 0, `upgrade: installation here: Rebooting`)
			if o.NoReboot {
				if err := k.Wait(); err != nil {
					t.Fatal(err)
				}
				o.Extra = disk
				k.Node = vmtest.Start(t, o)
			}
			k.Expect(t, 0, `engine: COSI .* from /dev/nvme0n1p3, which dm-verity checks`)
			k.Ready(t)
			if e := (&machinepb.BootEntry{}); k.Get(t, "bootentries", "root-a", e) == nil || !e.GetRunning() || !k.state(t).GetDurable() || !k.has(t, "userdata") {
				t.Errorf("slot A: %v; the state: %v; user data %v", e, k.state(t), k.has(t, "userdata"))
			}
			k.PressPower(t)
			isADisk(t, target.File)
		})
	}
}

// stick is one with an ISO, of a definition whose kernel knows USB. There is more room on it than that takes.
func stick(t *testing.T) string {
	t.Helper()
	definition := "metal"
	if ownKernel("base") {
		definition = "base"
	}
	iso, err := os.ReadFile(vmtest.Image(t, definition, "iso"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "stick.raw")
	if err := errors.Join(os.WriteFile(file, iso, 0o600), os.Truncate(file, gib)); err != nil {
		t.Fatal(err)
	}
	return file
}

// A node that was booted over the network has no medium: it installs what is at a URL, and puts beside it the user data that its disk boots with.
func TestInstallationFromTheNetwork(t *testing.T) {
	onlyInstalling(t, 100)
	file := vmtest.Image(t, "base", "upgrade")
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(file))))
	defer server.Close()
	k := &keeper{identity: vmtest.Identity(t)}
	data, err := k.identity.UserData()
	if err != nil {
		t.Fatal(err)
	}
	target := emptyDisk(t, "target")
	documents := kept("userdata") + takesAnyVersion + installation("medium", "serial: target", "medium: true") + fmt.Sprintf(`---
metadata: {type: Installations.machine.cosi.dev, id: here}
spec:
  disk: {serial: target}
  url: %s/%s
  digest: %s
  user_data: |
    %s
`, strings.Replace(server.URL, "127.0.0.1", host, 1), filepath.Base(file), sum(t, file), strings.ReplaceAll(string(data)+"---\n"+kept("beside"), "\n", "\n    "))
	k.Node = vmtest.Start(t, vmtest.Options{
		Format: "efi", Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target},
		NoReboot: true, // its firmware would boot it from there again
	})
	k.Expect(t, 0, `upgrade: installation here: Rebooting`)
	if err := k.Wait(); err != nil {
		t.Fatal(err)
	}
	isADisk(t, target.File)

	k.Node = vmtest.Start(t, vmtest.Options{NoImage: true, NoUserData: true, Identity: k.identity, Disks: []qemu.Disk{target}})
	k.Ready(t)
	k.Expect(t, 0, `user data esp-vda2: Applied`)
	if e := (&machinepb.BootEntry{}); k.Get(t, "bootentries", "root-a", e) == nil || !e.GetRunning() || !k.state(t).GetDurable() || !k.has(t, "beside") {
		t.Errorf("slot A: %v; the state: %v; user data %v", e, k.state(t), k.has(t, "beside"))
	}
	k.PressPower(t)
}
