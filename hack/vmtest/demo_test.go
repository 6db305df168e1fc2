package vmtest_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
)

// checks are done on one node, one after the other, because a boot is expensive. Each leaves the node as it found it.
type checks struct {
	*vmtest.Node
	outside    *outside
	data, late qemu.Disk
	system     string // a file: what the node was booted from, and may write to
	damage     int64  // where a bit of it is not as it is in the image
}

func TestNode(t *testing.T) {
	vmtest.Parallel(t, 140)
	vmtest.Host(t)
	c := &checks{outside: buildOutside(t), data: vmtest.Ext4(t, "data"), late: vmtest.Ext4(t, "late")}
	c.system, c.damage = damagedDisk(t, damagedModule)
	c.Node = vmtest.Start(t, vmtest.Options{File: c.system, Keep: true, Disks: []qemu.Disk{c.data}, HotplugPorts: 1})
	c.Ready(t)
	c.outside.connect(t, c.Node)

	t.Run("Root", c.root)
	t.Run("EveryKind", c.everyKind)
	t.Run("Demo", func(t *testing.T) { c.demo(t, "first") })
	t.Run("DemoAgain", func(t *testing.T) { c.demo(t, "second") })
	t.Run("DemoWithGrpcurl", c.demoWithGrpcurl)
	t.Run("GrpcurlIsToldWhatIsWrong", c.grpcurlIsToldWhatIsWrong)
	t.Run("BadSource", c.badSource)
	t.Run("DiskThatComesLater", c.diskThatComesLater)
	t.Run("Logs", c.logs)
	t.Run("CrashedPlugin", func(t *testing.T) { c.pluginThatEnds(t, "CRASH", "exit 2") })
	t.Run("KilledPlugin", func(t *testing.T) { c.pluginThatEnds(t, "KILL", "signal killed") })
	t.Run("KilledRuntime", c.runtimeThatIsKilled)
	t.Run("Reboot", c.reboot)
	t.Run("PowerButton", c.powerButton)
}

// demo is what the project is shown with: a MountPoints document is mounted, a second plugin, which knows of the status only, marks the
// file system, and after the deletion nothing is left but the marker.
func (c *checks) demo(t *testing.T, id string) {
	from := c.Console.Position()
	c.Converged(t, c.Apply(t, mountPoint(id, "/dev/vdb"))...)
	c.mounted(t, id)
	c.Expect(t, from, `marker: .*wrote `+target(id)+`/cosi-marker`)
	c.Delete(t, "mountpoints", id)
	c.unmounted(t, id)
}

func mountPoint(id, source string) string {
	return fmt.Sprintf("metadata: {type: MountPoints.storage.cosi.dev, id: %s}\nspec: {source: %s, target: %s, fstype: ext4, flags: [noatime]}\n",
		id, source, target(id))
}

func target(id string) string { return "/var/demo/" + id }

// mounted fails the test unless the data disk is mounted for the MountPoint id, and everybody who should say so does.
func (c *checks) mounted(t *testing.T, id string) {
	t.Helper()
	want, status := &storagepb.MountPoint{}, &storagepb.MountPointStatus{}
	desired := c.Get(t, "mountpoints", id, want)
	if got := desired.GetFinalizers(); len(got) != 1 || got[0] != "mount" {
		t.Errorf("finalizers of the MountPoint: %q; want that of mount", got)
	}
	observed := c.Get(t, "mountpointstatuses", id, status)
	if !status.GetReady() || status.GetReason() != "Mounted" || status.GetSource() != "/dev/vdb" || status.GetTarget() != target(id) || status.GetFstype() != "ext4" {
		t.Errorf("status: %v", status)
	}
	if v := number(t, status.GetObservedVersion()); v < 1 || v > number(t, desired.GetVersion()) {
		t.Errorf("the status answers to version %d of %s", v, desired.GetVersion())
	}
	cause := fmt.Sprintf("MountPoints.storage.cosi.dev/%s@%s", id, status.GetObservedVersion())
	if got := observed.GetAnnotations()["cosi.dev/cause"]; observed.GetOwner() != "mount" || got != cause {
		t.Errorf("the status is owned by %q and caused by %q; want mount, %q", observed.GetOwner(), got, cause)
	}
	if !inUse(t, c.data) {
		t.Error("the host sees a file system that nobody has mounted")
	}
}

// unmounted fails the test unless the MountPoint id is gone with all it brought, and the data disk bears its marker.
func (c *checks) unmounted(t *testing.T, id string) {
	t.Helper()
	for _, kind := range []string{"mountpoints", "mountpointstatuses"} {
		if m := c.Get(t, kind, id, &storagepb.MountPointStatus{}); m != nil {
			t.Errorf("%s/%s is still there: %v", kind, id, m)
		}
	}
	vmtest.CheckExt4(t, c.data)
	c.marked(t, c.data, id)
}

// marked fails the test unless the last marker on d is that of the MountPoint id.
func (c *checks) marked(t *testing.T, d qemu.Disk, id string) {
	t.Helper()
	if text, ok := vmtest.ReadExt4(t, d, "/cosi-marker"); !ok || !strings.Contains(text, id+" ") {
		t.Errorf("the marker on the disk %q: %q; want one of %q", d.ID, text, id)
	}
}

// badSource: the status says why, nothing is half mounted, and what is asked for can be taken back.
func (c *checks) badSource(t *testing.T) {
	for id, tc := range map[string]struct{ source, reason, message string }{
		"missing": {"/dev/nothing", "SourceMissing", "/dev/nothing"},
		"foreign": {"/dev/vda", "MountFailed", ""}, // the image's disk: no file system, but a partition table
	} {
		c.Apply(t, mountPoint(id, tc.source))
		var status storagepb.MountPointStatus
		c.Until(t, "mountpointstatuses", id, &status, func(m *resourcepb.Metadata) bool { return m != nil && status.GetReason() != "" })
		if status.GetReady() || status.GetReason() != tc.reason || !strings.Contains(status.GetMessage(), tc.message) {
			t.Errorf("%s: status %v; want reason %s", id, &status, tc.reason)
		}
		if status.GetSource()+status.GetTarget() != "" {
			t.Errorf("%s: something is mounted: %v", id, &status)
		}
		c.Delete(t, "mountpoints", id)
		if m := c.Get(t, "mountpointstatuses", id, &status); m != nil {
			t.Errorf("%s: its status is still there: %v", id, &status)
		}
	}
}

// diskThatComesLater: a MountPoint waits for its disk, and is there soon after it.
func (c *checks) diskThatComesLater(t *testing.T) {
	applied := c.Apply(t, mountPoint("late", "/dev/vdc"))
	var status storagepb.MountPointStatus
	c.Until(t, "mountpointstatuses", "late", &status, func(m *resourcepb.Metadata) bool { return m != nil && status.GetReason() != "" })
	if status.GetReady() || status.GetReason() != "SourceMissing" {
		t.Fatalf("status before there is a disk: %v", &status)
	}
	from := c.Console.Position()
	if err := c.Plug(c.Patience(t, patience), c.late, "port0"); err != nil {
		t.Fatal(err)
	}
	c.Converged(t, applied...)
	if !inUse(t, c.late) {
		t.Error("the host sees a file system that nobody has mounted")
	}
	c.Expect(t, from, `marker: .*wrote `+target("late")+`/cosi-marker`)
	c.Delete(t, "mountpoints", "late")
	if err := c.Unplug(c.Patience(t, patience), "late"); err != nil {
		t.Fatal(err)
	}
	vmtest.CheckExt4(t, c.late)
	c.marked(t, c.late, "late")
}

// inUse tells, while the VM runs, whether a disk's ext4 is mounted for writing: the flag needs_recovery stands in the superblock
// then. https://www.kernel.org/doc/html/latest/filesystems/ext4/super.html
func inUse(t *testing.T, d qemu.Disk) bool {
	t.Helper()
	file, err := os.Open(d.File)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const superblock, incompatible, needsRecovery = 1024, 0x60, 0x4
	var flags [4]byte
	if _, err := file.ReadAt(flags[:], superblock+incompatible); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(flags[:])&needsRecovery != 0
}

func number(t *testing.T, version string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n
}
