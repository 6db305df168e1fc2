package vmtest_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
// data; booted from a stick it leaves the disk alone, installs on others what it fetches and what it is given, and makes the disk, whose root is
// damaged by then, anew with the state kept; and a BIOS boots what is installed, too.
func TestInstallation(t *testing.T) {
	onlyInstalling(t, 300)
	documents := kept("userdata") + takesAnyVersion + installation("here", "serial: target", "medium: true")

	target := emptyDisk(t, "target")
	k := &keeper{identity: vmtest.Identity(t), outside: buildOutside(t)}

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
	damage(t, target.File, slotA)

	// As a disk of virtio: this kernel knows no USB. TestInstallationFromAStick has a stick.
	stick := filepath.Join(t.TempDir(), "stick.raw")
	if err := os.Symlink(vmtest.Image(t, "base", "iso"), stick); err != nil {
		t.Fatal(err)
	}
	fetched, pushed := emptyDisk(t, "fetched"), emptyDisk(t, "pushed")
	k.Node = vmtest.Start(t, vmtest.Options{File: stick, Boot: node.BIOS, Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target, fetched, pushed}})
	k.Ready(t)
	is := k.refused(t, "here")
	if !strings.Contains(is.GetMessage(), "/dev/vdb (2.0 GiB) holds COSI ") || is.GetFingerprint() == "" || !strings.Contains(is.GetMessage(), "fingerprint: "+is.GetFingerprint()) {
		t.Errorf("once more: %v", is)
	}
	k.Apply(t, installation("any", "transport: virtio", "medium: true"))
	if is := k.refused(t, "any"); !strings.Contains(is.GetMessage(), "3 disks match, and exactly one must: /dev/vdb (2.0 GiB), /dev/vdc (2.0 GiB), /dev/vdd (2.0 GiB)") {
		t.Errorf("with three disks and the stick: %v", is)
	}
	k.installsByHand(t, fetched, pushed)
	k.keepsTheState(t, target)
	k.PressPower(t)
	for _, d := range []qemu.Disk{fetched, pushed, target} {
		isADisk(t, d.File)
	}

	k.Node = vmtest.Start(t, vmtest.Options{NoImage: true, Boot: node.BIOS, Identity: k.identity, Documents: documents, Disks: []qemu.Disk{target}})
	k.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	k.runsInstalled(t)
	if !k.has(t, "acknowledged") {
		t.Error("what was acknowledged is gone")
	}
	k.PressPower(t)
}

// onlyInstalling skips the test unless installations are tested. It boots a node several times.
func onlyInstalling(t *testing.T, seconds int) {
	t.Helper()
	if wanted := strings.Fields(os.Getenv("COSI_TEST_UPGRADE")); !slices.Contains(wanted, "all") && !slices.Contains(wanted, installing) {
		t.Skip("make test-upgrade runs it: it boots a node several times")
	}
	vmtest.Parallel(t, seconds)
	vmtest.Host(t)
}

// takesAnyVersion are documents behind others.
const takesAnyVersion = `---
metadata: {type: UpgradePolicies.machine.cosi.dev, id: node}
spec: {allow_unsigned: true}
`

// installation is a document behind others.
func installation(id, disk, source string) string {
	return fmt.Sprintf("---\nmetadata: {type: Installations.machine.cosi.dev, id: %s}\nspec: {disk: {%s}, %s}\n", id, disk, source)
}

func emptyDisk(t *testing.T, id string) qemu.Disk {
	t.Helper()
	d := qemu.Disk{ID: id, File: filepath.Join(t.TempDir(), id+".raw"), Format: "raw"}
	if err := errors.Join(os.WriteFile(d.File, nil, 0o600), os.Truncate(d.File, 2*gib)); err != nil {
		t.Fatal(err)
	}
	return d
}

// installsByHand: cosictl has the node install what it fetches on one disk, and what is pushed on another.
func (k *keeper) installsByHand(t *testing.T, fetched, pushed qemu.Disk) {
	t.Helper()
	k.outside.connect(t, k.Node)
	file := vmtest.Image(t, "base", "upgrade")
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(file))))
	defer server.Close()
	url := strings.Replace(server.URL, "127.0.0.1", host, 1) + "/" + filepath.Base(file)
	for disk, source := range map[string][]string{fetched.ID: {url, "--digest", sum(t, file)}, pushed.ID: {file}} {
		text, err := k.outside.long(t, append([]string{"install", "--id", disk, "--disk", "serial=" + disk, "--no-reboot"}, source...)...)
		if err != nil || !strings.Contains(text, "\nInstalled version ") {
			t.Errorf("%s: %v\n%s", disk, err, text)
		}
	}
}

// damage wipes a MiB of a disk.
func damage(t *testing.T, disk string, at int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(make([]byte, 1<<20), at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keepsTheState: cosictl has the node install what the stick is of on a disk that has a state, once, and on none that has not.
func (k *keeper) keepsTheState(t *testing.T, target qemu.Disk) {
	t.Helper()
	install := func(disk string) (string, error) {
		return k.outside.long(t, "install", "--id", "kept", "--disk", "serial="+disk, "--keep-state", "--no-reboot")
	}
	if text, err := install("pushed"); err == nil || !strings.Contains(text, "has no state that could be kept: it holds COSI ") {
		t.Errorf("a disk without a state: %v\n%s", err, text)
	}
	if text, err := install(target.ID); err != nil || !strings.Contains(text, "\nInstalled version ") {
		t.Errorf("%s: %v\n%s", target.ID, err, text)
	}
	if text, err := install(target.ID); err == nil || !strings.Contains(text, " already, whole, beside its state; ") {
		t.Errorf("%s again: %v\n%s", target.ID, err, text)
	}
}

// isADisk fails the test unless other people's programs are content with what was installed.
func isADisk(t *testing.T, disk string) {
	t.Helper()
	dir := t.TempDir()
	if out := judged(t, "sgdisk", "-v", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("%s: sgdisk -v:\n%s", disk, out)
	}
	judged(t, "fsck.vfat", "-n", espOf(t, disk, dir))
	offset, hash := rootArguments(t, ukiOf(t, disk, dir))
	slot := slotOf(t, disk, dir)
	judged(t, "veritysetup", "verify", "--hash-offset="+offset, slot, slot, hash)
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
	k.says(t, id, is, func() bool { return is.GetReason() == "Refused" })
	return is
}

// says waits until an Installation has the status that is wanted.
func (k *keeper) says(t *testing.T, id string, is *machinepb.InstallationStatus, wanted func() bool) {
	t.Helper()
	for ctx := k.Patience(t, time.Minute); !wanted(); time.Sleep(100 * time.Millisecond) {
		if k.Get(t, "installationstatuses", id, is); ctx.Err() != nil {
			t.Fatalf("installation %s: %v", id, is)
		}
	}
}
