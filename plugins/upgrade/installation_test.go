package upgrade

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
)

// memoryNode is a node whose root is in memory, with disks.
func memoryNode(t *testing.T, disks ...*whole) *node {
	t.Helper()
	n := &node{Runtime: plugintest.Start(t, declared), t: t, installer: *onto(disks...)}
	n.Apply(nodeID, &machinepb.UpgradePolicy{AllowUnsigned: true})
	for _, d := range n.installer.all {
		n.plug(d)
	}
	n.installer.all = nil
	return n
}

func (n *node) plug(t target) {
	n.Apply(t.name, &storagepb.Disk{Device: t.node, Size: uint64(t.size), LogicalBlockSize: 512, Transport: "virtio", Serial: "serial of " + t.name, Diskseq: 1})
}

// reads waits for an Installation's status with a reason and a message.
func (n *node) reads(id, reason, message string) *machinepb.InstallationStatus {
	n.t.Helper()
	is := &machinepb.InstallationStatus{}
	n.Wait(id+" is "+reason+": "+message, func() bool {
		return n.Get(id, is) != nil && is.GetReason() == reason && strings.Contains(is.GetMessage(), message) && !strings.HasPrefix(is.GetMessage(), "refused")
	})
	return is
}

func TestAnInstallationReboots(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	d := emptyDisk()
	n := memoryNode(t, d, emptyDisk())
	n.run(nil, errNoSlot)
	wanted := &machinepb.Installation{Disk: &machinepb.Installation_Selector{Serial: "serial of vda"}, Pushed: true, Digest: digest}
	n.Apply("here", wanted)
	n.reads("here", reasonReceiving, "")
	n.push("here", digest, file)
	is := n.reads("here", reasonRebooting, "")
	if !is.GetReady() || is.GetDone() || is.GetVersion() != "1.0.0" || is.GetRootHash() != i.root.String() || is.GetDevice() != "/dev/vda" {
		t.Errorf("status: %v", is)
	}
	asMade(t, d.Data, raw, i)
	request := &powerpb.ShutdownRequest{}
	if n.Get(rebootID, request) == nil || request.GetAction() != powerpb.ShutdownRequest_REBOOT || request.GetReason() != "installation here of version 1.0.0 on /dev/vda" {
		t.Errorf("request: %v", request)
	}
	n.Apply(rebootID, &powerpb.ShutdownStatus{Reason: "Refused", Message: "refused by somebody"})
	if is := n.reads("here", reasonInstalled, "a reboot was refused: refused by somebody"); !is.GetReady() || !is.GetDone() {
		t.Errorf("status: %v", is)
	}
	// A plugin that is started again does not begin again.
	n.end()
	n.run(nil, errNoSlot)
	n.Apply("other", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Serial: "none"}, Pushed: true, Digest: digest})
	n.reads("other", reasonWaiting, `for a disk that matches; there are: /dev/vda (48.0 MiB), serial "serial of vda", model "", virtio; /dev/vdb`)
	n.reads("here", reasonInstalled, "")
	// Written again it does, and finds what it has made.
	wanted.NoReboot = true
	n.Apply("here", wanted)
	full := n.reads("here", reasonRefused, "/dev/vda (48.0 MiB) holds COSI 1.0.0, a partition table with 4 partitions")
	if full.GetFingerprint() == "" || full.GetReady() || !full.GetDone() || !strings.Contains(full.GetMessage(), "fingerprint: "+full.GetFingerprint()) {
		t.Errorf("status: %v", full)
	}
	wanted.Fingerprint = full.GetFingerprint()
	n.Apply("here", wanted)
	n.reads("here", reasonReceiving, "")
	n.push("here", digest, file)
	n.reads("here", reasonInstalled, "it runs when the node is booted from this disk")
	asMade(t, d.Data, raw, i)
}

func TestAnInstallationThatKeepsTheState(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	d := newWhole(former(t, statePart))
	n := memoryNode(t, d, emptyDisk())
	n.run(nil, errNoSlot)
	n.Apply("b", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vdb"}, Pushed: true, Digest: digest, KeepState: true})
	n.reads("b", reasonRefused, "/dev/vdb (48.0 MiB) has no state that could be kept")
	wanted := &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vda"}, Pushed: true, Digest: digest, KeepState: true, NoReboot: true}
	n.Apply("a", wanted)
	n.reads("a", reasonReceiving, "")
	n.push("a", digest, file)
	n.reads("a", reasonInstalled, "")
	asMade(t, d.Data, raw, i, statePart)
	wanted.NoReboot = false
	n.Apply("a", wanted)
	n.reads("a", reasonReceiving, "")
	n.push("a", digest, file)
	if is := n.reads("a", reasonRefused, "has version 1.0.0 already, whole, beside its state"); !strings.HasSuffix(is.GetMessage(), " fingerprint: "+is.GetFingerprint()) {
		t.Errorf("status: %v", is)
	}
}

// From a URL, and from the medium that the node was booted from, which matches the selector, too.
func TestOtherSources(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(file) }))
	defer server.Close()
	disks := []*whole{emptyDisk(), emptyDisk(), mediumOf(t, file, digest)}
	n := memoryNode(t, disks...)
	n.run(nil, errNoSlot)
	n.Apply("a", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vda"}, Url: server.URL, Digest: digest, NoReboot: true})
	n.reads("a", reasonInstalled, "")
	n.Apply("vda", &storagepb.Disk{Device: "/dev/vda"})
	n.Apply("b", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Transport: "virtio"}, Medium: true, NoReboot: true})
	if is := n.reads("b", reasonInstalled, ""); is.GetReceived() != uint64(len(file)) || is.GetSize() != is.GetReceived() || is.GetDevice() != "/dev/vdb" {
		t.Errorf("status: %v", is)
	}
	for _, d := range disks[:2] {
		asMade(t, d.Data, raw, i)
	}
	n.Apply("c", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vdc"}, Medium: true})
	n.reads("c", reasonWaiting, "no disk matches but the medium that the node was booted from; tried again in 10s")
}

// What it is refused for may change: then it is looked at again, and not before.
func TestAnInstallationWaitsForItsDisk(t *testing.T) {
	_, _, digest, _ := oneImage(t)
	n := memoryNode(t, emptyDisk(), emptyDisk())
	n.settled = 2 * time.Second
	n.run(nil, errNoSlot)
	wanted := &machinepb.Installation{Disk: &machinepb.Installation_Selector{Transport: "virtio"}, Pushed: true, Digest: digest}
	n.Apply("any", wanted)
	n.reads("any", reasonWaiting, "2s for other disks")
	n.reads("any", reasonRefused, "2 disks match, and exactly one must: /dev/vda (48.0 MiB), /dev/vdb (48.0 MiB)")
	n.Delete("any", wanted) // and one of the same name is another
	n.Wait("its status is gone", func() bool { return n.Get("any", &machinepb.InstallationStatus{}) == nil })
	n.Apply("any", wanted)
	n.reads("any", reasonRefused, "2 disks match")
	n.Apply("next", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vdb"}, Pushed: true, Digest: digest})
	n.reads("next", reasonReceiving, "")
	n.Apply("third", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vdb"}, Pushed: true, Digest: digest})
	n.reads("third", reasonWaiting, `for Installation "next"`)
	n.Delete("next", &machinepb.Installation{})
	n.Delete("third", &machinepb.Installation{})
	n.Apply("vda", &storagepb.Disk{Device: "/dev/vda", Size: targetSize, LogicalBlockSize: 512, Transport: "virtio", ReadOnly: true})
	n.reads("any", reasonReceiving, "")
}

func TestInstallationsThatMakeNoSense(t *testing.T) {
	digest := strings.Repeat("0", 64)
	vda := &machinepb.Installation_Selector{Name: "vda"}
	n := memoryNode(t, emptyDisk())
	n.run(nil, errNoSlot)
	for want, i := range map[string]*machinepb.Installation{
		"disk: says nothing":                 {Disk: &machinepb.Installation_Selector{}, Pushed: true, Digest: digest},
		"want one of url, pushed and medium": {Disk: vda, Pushed: true, Url: "https://x", Digest: digest},
		"digest: missing":                    {Disk: vda, Pushed: true},
		"for a disk that matches":            {Disk: &machinepb.Installation_Selector{Name: "vda", MaxSize: mib}, Pushed: true, Digest: digest},
		"tried again in 10s":                 {Disk: vda, Url: "http://127.0.0.1:1/", Digest: digest},
		"no UpgradePolicies that is in":      {Disk: vda, Pushed: true, Digest: digest},
	} {
		reason := reasonRefused
		if strings.HasPrefix(want, "for") || strings.HasPrefix(want, "tried") {
			reason = reasonWaiting
		}
		if strings.HasPrefix(want, "no Upgrade") {
			n.Delete(nodeID, &machinepb.UpgradePolicy{})
		}
		n.Apply("x", i)
		n.reads("x", reason, want)
		n.Apply(nodeID, &machinepb.UpgradePolicy{AllowUnsigned: true})
	}
}

// A node that runs from a disk is installed, and does nothing about it.
func TestAnInstallationOnANodeThatIsInstalled(t *testing.T) {
	n, a, _ := newNode(t)
	m := n.disk.machine(a, "root-a")
	m.disk = "vda"
	n.run(m, nil)
	digest := strings.Repeat("0", 64)
	n.Apply("here", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Serial: "serial of vda"}, Pushed: true, Digest: digest})
	n.reads("here", reasonWaiting, "for what Disks say of /dev/vda")
	n.plug(target{name: "vda", node: "/dev/vda", size: targetSize})
	if is := n.reads("here", reasonInstalled, "the node runs from it"); !is.GetReady() || !is.GetDone() || is.GetVersion() != "1.0.0" || is.GetDevice() != "/dev/vda" {
		t.Errorf("status: %v", is)
	}
	n.Apply("there", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vdb"}, Pushed: true, Digest: digest})
	if is := n.reads("there", reasonRefused, "the node runs from /dev/vda, which is another disk"); is.GetReady() {
		t.Errorf("status: %v", is)
	}
}

// What is not right is an outcome; it is not tried again.
func TestAnInstallationThatFails(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	n := memoryNode(t, emptyDisk())
	n.run(nil, errNoSlot)
	wrong := strings.Repeat("0", 64)
	n.Apply("x", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vda"}, Pushed: true, Digest: wrong})
	n.reads("x", reasonReceiving, "")
	n.push("x", wrong, file)
	if is := n.reads("x", reasonFailed, "the SHA-256 of its file is "+digest); is.GetReady() || !is.GetDone() {
		t.Errorf("status: %v", is)
	}
	n.plug(target{name: "vdc", node: "/dev/vdc", size: targetSize})
	n.Apply("y", &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "none"}, Pushed: true, Digest: wrong})
	n.reads("y", reasonWaiting, "for a disk that matches")
	n.reads("x", reasonFailed, "")
}

func TestTwoSourcesThatFailAreEachLeftAlone(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	n := memoryNode(t, emptyDisk(), emptyDisk())
	n.run(nil, errNoSlot)
	for _, name := range []string{"vda", "vdb"} {
		n.Apply(name, &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: name}, Url: server.URL, Digest: strings.Repeat("0", 64)})
		n.reads(name, reasonWaiting, "503 Service Unavailable; tried again in 10s")
	}
	for i := range 5 { // each has the plugin look at everything again
		n.Apply("vdc", &storagepb.Disk{Device: "/dev/vdc", Diskseq: uint64(i)})
		time.Sleep(20 * time.Millisecond)
	}
	if asked.Load() != 2 {
		t.Errorf("the server is asked %d times", asked.Load())
	}
}
