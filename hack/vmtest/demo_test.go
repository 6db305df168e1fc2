package vmtest

import (
	"strings"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/tools/qemu"

	"google.golang.org/protobuf/proto"
)

const mountData = `
metadata: {type: MountPoints.storage.cosi.dev, id: data}
spec: {source: /dev/vdb, target: /var/data, fstype: ext4}
`

// One node for all checks: the talk's demo, a disk that comes and goes, what a plugin may not do, and
// the power button.
func TestNode(t *testing.T) {
	data := Ext4(t, "data")
	n := Start(t, Options{Definition: "test", Disks: []qemu.Disk{data}, HotplugPorts: 2})
	n.Ready(t)

	t.Run("Demo", n.demo)
	t.Run("DemoAgain", n.demo)
	t.Run("BadSource", n.badSource)
	t.Run("PluggedDisk", n.pluggedDisk)
	t.Run("PluginIsRefused", n.pluginIsRefused)
	t.Run("PowerButton", n.powerButton)

	// After power-off the host looks: the marker is on the data disk, which was unmounted.
	if text, ok := ReadExt4(t, data, "/cosi-marker"); !ok || !strings.Contains(text, "data ") {
		t.Errorf("the marker on the data disk: %q", text)
	}
	CheckExt4(t, data)
}

// demo: a MountPoints document is mounted, a second plugin marks the file system, and after the
// deletion nothing is left.
func (n *Node) demo(t *testing.T) {
	from := n.Console.Position()
	applied := n.Apply(t, mountData)
	n.Converged(t, applied...)
	var status storagepb.MountPointStatus
	n.Get(t, "mountpointstatuses", "data", &status)
	if !status.GetReady() || status.GetTarget() != "/var/data" || status.GetObservedVersion() != applied[0].GetMetadata().GetVersion() {
		t.Errorf("the status: %v", &status)
	}
	if m := n.Get(t, "mountpoints", "data", &storagepb.MountPoint{}); len(m.GetFinalizers()) == 0 {
		t.Error("the plugin has not acknowledged the MountPoint: it has no finalizer")
	}
	n.Expect(t, from, `marker: .*wrote /var/data/cosi-marker`)
	n.Delete(t, "mountpoints", "data")
	n.Until(t, "mountpointstatuses", "data", &status, func(m *resourcepb.Metadata) bool { return m == nil })
}

// badSource: the status says why, and nothing is half mounted.
func (n *Node) badSource(t *testing.T) {
	n.Apply(t, `
metadata: {type: MountPoints.storage.cosi.dev, id: bad}
spec: {source: /dev/nothing, target: /var/bad, fstype: ext4}
`)
	var status storagepb.MountPointStatus
	n.Until(t, "mountpointstatuses", "bad", &status, func(m *resourcepb.Metadata) bool { return m != nil && status.GetReason() != "" })
	if status.GetReady() || status.GetSource() != "" || !strings.Contains(status.GetMessage(), "/dev/nothing") {
		t.Errorf("the status: %v", &status)
	}
	n.Delete(t, "mountpoints", "bad")
}

// pluggedDisk: a mount waits for a disk that comes later.
func (n *Node) pluggedDisk(t *testing.T) {
	applied := n.Apply(t, `
metadata: {type: MountPoints.storage.cosi.dev, id: more}
spec: {source: /dev/vdc, target: /var/more, fstype: ext4}
`)
	var status storagepb.MountPointStatus
	n.Until(t, "mountpointstatuses", "more", &status, func(m *resourcepb.Metadata) bool { return m != nil && status.GetReason() != "" })
	if status.GetReady() {
		t.Fatalf("mounted before there is a disk: %v", &status)
	}
	if err := n.Plug(n.Patience(t, converge), Ext4(t, "more"), "port0"); err != nil {
		t.Fatal(err)
	}
	n.Converged(t, applied...)
	n.Delete(t, "mountpoints", "more")
	if err := n.Unplug(n.Patience(t, converge), "more"); err != nil {
		t.Error(err)
	}
}

// pluginIsRefused: a plugin without rights has tried what it may not do.
func (n *Node) pluginIsRefused(t *testing.T) {
	kind := n.Kind(t, "probes")
	var results []*resourcepb.Resource
	for deadline := n.Patience(t, converge); len(results) < 20; time.Sleep(200 * time.Millisecond) {
		var err error
		if results, err = n.Client.List(deadline, kind); err != nil {
			t.Fatalf("%d results, then: %v", len(results), err)
		}
	}
	for _, r := range results {
		var result testpb.ProbeResult
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), &result); err != nil {
			t.Fatal(err)
		}
		if !result.GetRefused() {
			t.Errorf("%s was not refused: %s: %q", r.GetMetadata().GetId(), result.GetAttempted(), result.GetError())
		}
	}
}

// powerButton: a clean power-off within 10 s.
func (n *Node) powerButton(t *testing.T) {
	n.Converged(t, n.Apply(t, mountData)...) // mounted when the button is pressed
	if took := n.PressPower(t); took > 10*time.Second {
		t.Errorf("power-off took %v", took)
	}
	if tail := n.Console.Tail(20); !strings.Contains(tail, "Power down") {
		t.Errorf("the kernel did not say that it powers down:\n%s", tail)
	}
}
