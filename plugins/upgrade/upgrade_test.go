package upgrade

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/sdk"
)

// node is a machine with a disk that is booted again and again. What it keeps, it keeps over a boot.
type node struct {
	*plugintest.Runtime
	t    *testing.T
	disk *disk
	// slots are what has been written where.
	slots   map[string]image
	started time.Duration // how long ago the kernel did, when the plugin starts
	end     func()

	installer installer
	settled   time.Duration // how long no disk comes
}

func newNode(t *testing.T) (n *node, a, old image) { return newNodeOf(t, uefi) }

func newNodeOf(t *testing.T, firmware string) (n *node, a, old image) {
	t.Helper()
	a, old = newImage(t, "1.0.0"), newImage(t, "0.9.0")
	n = &node{Runtime: plugintest.Start(t, declared), t: t, disk: newDisk(t, firmware, a, old), slots: map[string]image{"root-a": a, "root-b": old}}
	n.Apply(nodeID, &machinepb.UpgradePolicy{AllowUnsigned: true})
	return n, a, old
}

// boot boots what the disk says, and starts the plugin.
func (n *node) boot() {
	n.t.Helper()
	if n.end != nil {
		n.end()
		for _, id := range []string{rebootID, giveUpID} {
			if n.Get(id, &powerpb.ShutdownRequest{}) != nil { // is in memory on a node
				n.destroy(id)
			}
		}
	}
	var all []image
	for _, i := range n.slots {
		all = append(all, i)
	}
	e := n.disk.boots(n.t, all...)
	n.disk.count(n.t)
	for name, i := range n.slots {
		if i.root == e.Root {
			n.run(n.disk.machine(i, name), nil)
		}
	}
}

func (n *node) destroy(id string) {
	n.t.Helper()
	p := state.Pointer{Kind: state.Kind{Namespace: "requests", Type: shutdownType}, ID: id}
	if err := n.Store.Destroy(n.t.Context(), p, state.WriteOptions{Owner: "upgrade"}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) run(m *machine, failure error) {
	n.t.Helper()
	n.t.Setenv(sdk.EnvEndpoint, n.Endpoint)
	c := &controller{look: func() (*machine, error) { return m, failure }, started: time.Now().Add(-n.started), alarm: alarm.New(alarm.System{})}
	c.installer, c.settle = n.installer, n.settled
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(c)) }()
	n.end = func() { cancel(); <-done }
	n.t.Cleanup(n.end)
	n.WaitReady()
}

func (n *node) ready(is bool) {
	n.Apply("machine", &machinepb.MachineStatus{Ready: is, Reason: map[bool]string{false: "NoAddress"}[is], Message: map[bool]string{false: "no link has an address"}[is]})
}

// waits for an Upgrade's status.
func (n *node) waits(id, reason string) *machinepb.UpgradeStatus {
	n.t.Helper()
	is := &machinepb.UpgradeStatus{}
	n.Wait(id+" is "+reason, func() bool { return n.Get(id, is) != nil && is.GetReason() == reason })
	return is
}

func (n *node) entry(id string) *machinepb.BootEntry {
	e := &machinepb.BootEntry{}
	n.Get(id, e)
	return e
}

// push pushes a file as cosictl does.
func (n *node) push(id, digest string, file []byte) {
	n.t.Helper()
	piece := max(20_000, len(file)/8)
	upgrade, installation := &machinepb.UpgradeStatus{}, &machinepb.InstallationStatus{}
	taken := func(at int) bool {
		is := interface {
			GetReceived() uint64
			GetReason() string
		}(upgrade)
		if n.Get(id, upgrade) == nil {
			if is = installation; n.Get(id, installation) == nil {
				return false
			}
		}
		return int(is.GetReceived()) > at || is.GetReason() != reasonReceiving
	}
	for at := 0; at < len(file); {
		chunk := &machinepb.UpgradeChunk{Upgrade: id, Digest: digest, Offset: uint64(at), Size: uint64(len(file)), Data: file[at:min(at+piece, len(file))]}
		name := fmt.Sprintf("%s-%d", id, at)
		n.Apply(name, chunk)
		n.Wait(fmt.Sprintf("%d bytes are taken", at+len(chunk.GetData())), func() bool { return taken(at) })
		n.Delete(name, chunk)
		at += len(chunk.GetData())
	}
}

// pushed has the node upgrade to an image, up to the reboot.
func (n *node) pushed(id string, i image) {
	n.t.Helper()
	file, digest := i.file(n.t, nil)
	n.Apply(id, &machinepb.Upgrade{Pushed: true, Digest: digest})
	n.waits(id, reasonReceiving)
	n.push(id, digest, file)
	if is := n.waits(id, reasonRebooting); is.GetVersion() != i.version || is.GetRootHash() != i.root.String() {
		n.t.Errorf("status = %v", is)
	}
	n.slots["root-b"] = i
}

func TestAPushedUpgradeSucceeds(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware, func(t *testing.T) { succeeds(t, firmware) })
	}
}

func succeeds(t *testing.T, firmware string) {
	n, a, _ := newNodeOf(t, firmware)
	n.ready(true)
	n.boot()
	if e := n.entry("root-a"); e.GetState() != "Good" || !e.GetRunning() || !e.GetNext() || e.GetVersion() != "1.0.0" || e.GetFirmware() != firmware {
		t.Errorf("slot A: %v", e)
	}
	b := newImage(t, "2.0.0")
	n.pushed("to-2", b)
	request, record := &powerpb.ShutdownRequest{}, &machinepb.UpgradeRecord{}
	if n.Get(rebootID, request) == nil || request.GetAction() != powerpb.ShutdownRequest_REBOOT || request.GetForce() {
		t.Errorf("request: %v", request)
	}
	if n.Get("to-2", record); record.GetEntry() != 3 || record.GetAttempted() == nil || record.GetOutcome() != "" {
		t.Errorf("record: %v", record)
	}
	if e := n.entry("root-b"); e.GetState() != "Trying" || e.GetTriesLeft() != 3 || !e.GetNext() || e.GetRunning() || e.GetVersion() != "2.0.0" {
		t.Errorf("slot B: %v", e)
	}

	n.ready(false)
	n.boot()
	if is := n.waits("to-2", reasonTrying); is.GetMessage() != "NoAddress: no link has an address" {
		t.Errorf("on trial: %v", is)
	}
	health := &machinepb.BootHealthStatus{}
	if n.Get(nodeID, health); health.GetReady() || health.GetReason() != "Trying" {
		t.Errorf("health: %v", health)
	}
	n.ready(true)
	if is := n.waits("to-2", reasonSucceeded); !is.GetReady() || !is.GetDone() {
		t.Errorf("status: %v", is)
	}
	n.Wait("the entry is good", func() bool { return n.entry("root-b").GetState() == "Good" })
	if n.Get(nodeID, health); !health.GetReady() {
		t.Errorf("health: %v", health)
	}
	if e := n.disk.boots(t, a, b); e.Name() != "cosi-00000003.conf" || n.entry("root-b").GetEntry() != e.Name() {
		t.Errorf("booted next: %s", e.Name())
	}
	// It stays so.
	n.boot()
	n.waits("to-2", reasonSucceeded)
}

// A version that never becomes healthy is left after its tries; the record says why, and it is not tried again until somebody writes it again.
func TestABadVersionIsRolledBackOnce(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware, func(t *testing.T) { rolledBackOnce(t, firmware) })
	}
}

func rolledBackOnce(t *testing.T, firmware string) {
	n, a, _ := newNodeOf(t, firmware)
	n.ready(true)
	n.boot()
	n.pushed("to-2", newImage(t, "2.0.0"))
	n.ready(false)
	n.started = 20 * time.Second
	n.Apply(nodeID, &machinepb.BootHealth{Deadline: durationpb.New(10 * time.Second)})
	request := &powerpb.ShutdownRequest{}
	for range 3 {
		n.boot()
		n.Wait("it gives up", func() bool { return n.Get(giveUpID, request) != nil })
		if !request.GetForce() || !request.GetCritical() || !strings.Contains(request.GetReason(), "NoAddress: no link has an address") {
			t.Errorf("request: %v", request)
		}
		n.waits("to-2", reasonTrying)
	}
	// Healthy too late: the reboot is on its way.
	n.ready(true)
	n.Apply("later", &machinepb.Upgrade{})
	n.Wait("it has answered what came after that", func() bool { return n.Get("later", &machinepb.UpgradeStatus{}) != nil })
	if e := n.entry("root-b"); e.GetState() == "Good" {
		t.Errorf("slot B: %v", e)
	}
	n.boot()
	is := n.waits("to-2", reasonRolledBack)
	if want := "booted 3 times, not healthy after 10s: NoAddress: no link has an address"; is.GetMessage() != want || is.GetReady() || !is.GetDone() {
		t.Errorf("status: %v; want %q", is, want)
	}
	if e := n.entry("root-b"); e.GetState() != "Bad" || e.GetTriesDone() != 3 || e.GetNext() {
		t.Errorf("slot B: %v", e)
	}
	if e := n.entry("root-a"); !e.GetRunning() || !e.GetNext() || e.GetRootHash() != a.root.String() {
		t.Errorf("slot A: %v", e)
	}
	if n.Get(rebootID, request) != nil {
		t.Errorf("it asks for another reboot: %v", request)
	}
	n.boot()
	n.waits("to-2", reasonRolledBack)
	if n.Get(rebootID, request) != nil {
		t.Errorf("after another boot it asks for a reboot: %v", request)
	}
	// Written again, it is tried again.
	_, digest := newImage(t, "2.0.0").file(t, nil)
	n.Apply("to-2", &machinepb.Upgrade{Pushed: true, Digest: digest})
	n.waits("to-2", reasonReceiving)
}

// A version that cannot even say what is wrong is left, too.
func TestAVersionThatSaysNothing(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	n.boot()
	n.pushed("to-2", newImage(t, "2.0.0"))
	for range 3 {
		n.disk.count(t)
	}
	n.boot()
	if is := n.waits("to-2", reasonRolledBack); !strings.Contains(is.GetMessage(), "booted 3 times, it never came so far") {
		t.Errorf("status: %v", is)
	}
}

func TestAnUpgradeFromAURL(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	b := newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	}))
	defer server.Close()
	n.boot()
	n.Apply("gone", &machinepb.Upgrade{Url: server.URL + "/gone", Digest: digest})
	is := &machinepb.UpgradeStatus{}
	n.Wait("the status says why", func() bool {
		return n.Get("gone", is) != nil && strings.Contains(is.GetMessage(), "404 Not Found; tried again in 10s")
	})
	if is.GetReason() != reasonReceiving || is.GetDone() {
		t.Errorf("status: %v", is)
	}
	n.Delete("gone", &machinepb.Upgrade{})
	n.Wait("its status is gone", func() bool { return n.Get("gone", is) == nil })
	n.Apply("there", &machinepb.Upgrade{Url: server.URL + "/there", Digest: digest, NoReboot: true})
	if is := n.waits("there", reasonStaged); is.GetVersion() != "2.0.0" || is.GetMessage() != "it is booted next, and has 3 tries left" {
		t.Errorf("status: %v", is)
	}
	if n.Get(rebootID, &powerpb.ShutdownRequest{}) != nil {
		t.Error("it asks for a reboot")
	}
	n.Apply("wrong", &machinepb.Upgrade{Url: server.URL + "/there", Digest: strings.Repeat("0", 64)})
	if is := n.waits("wrong", reasonWaiting); is.GetMessage() != `for Upgrade "there"` {
		t.Errorf("status: %v", is)
	}
}

// What arrives and is not what was asked for is an outcome, and the node stays as it is.
func TestAnotherDigest(t *testing.T) {
	n, a, _ := newNode(t)
	n.ready(true)
	n.boot()
	file, _ := newImage(t, "2.0.0").file(t, nil)
	wrong := strings.Repeat("0", 64)
	n.Apply("wrong", &machinepb.Upgrade{Pushed: true, Digest: wrong})
	n.waits("wrong", reasonReceiving)
	n.push("wrong", wrong, file)
	if is := n.waits("wrong", reasonFailed); !strings.Contains(is.GetMessage(), "the SHA-256 of its file is") || !is.GetDone() {
		t.Errorf("status: %v", is)
	}
	if e := n.disk.boots(t, a); e.Root != a.root {
		t.Errorf("%s is booted", e.Version)
	}
}

func TestBackToTheVersionBefore(t *testing.T) {
	n, _, old := newNode(t)
	n.ready(true)
	n.boot()
	n.Apply("back", &machinepb.Upgrade{Previous: true})
	if is := n.waits("back", reasonRebooting); is.GetVersion() != "0.9.0" {
		t.Errorf("status: %v", is)
	}
	n.boot()
	n.waits("back", reasonSucceeded)
	if e := n.entry("root-b"); !e.GetRunning() || e.GetState() != "Good" || e.GetRootHash() != old.root.String() {
		t.Errorf("slot B: %v", e)
	}
}

// Power that is lost between the record and the entry ends the upgrade: whether it was booted, nobody knows.
func TestARecordWithoutAnEntry(t *testing.T) {
	n, a, _ := newNode(t)
	n.ready(true)
	n.boot()
	b := newImage(t, "2.0.0")
	n.pushed("to-2", b)
	m := n.disk.machine(a, "root-a")
	if err := m.withESP(m.forget); err != nil {
		t.Fatal(err)
	}
	n.boot()
	if is := n.waits("to-2", reasonFailed); !strings.Contains(is.GetMessage(), "its boot entry is not there") {
		t.Errorf("status: %v", is)
	}
}

func TestARebootThatIsRefused(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	n.boot()
	n.Apply(rebootID, &powerpb.ShutdownStatus{Reason: "Refused", Message: "refused by etcd-guard"})
	file, digest := newImage(t, "2.0.0").file(t, nil)
	n.Apply("to-2", &machinepb.Upgrade{Pushed: true, Digest: digest})
	n.waits("to-2", reasonReceiving)
	n.push("to-2", digest, file)
	if is := n.waits("to-2", reasonStaged); is.GetMessage() != "it runs after the next reboot; this one was refused: refused by etcd-guard" {
		t.Errorf("status: %v", is)
	}
}

// A condition of the user's is waited for, and shown.
func TestConditions(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	n.boot()
	n.pushed("to-2", newImage(t, "2.0.0"))
	n.Apply(nodeID, &machinepb.BootHealth{Conditions: []*machinepb.BootHealth_Condition{{Type: "MountPointStatuses.storage.cosi.dev", Id: "data"}}})
	n.boot()
	health := &machinepb.BootHealthStatus{}
	waits := func(message string) {
		t.Helper()
		n.Wait(message, func() bool { return n.Get(nodeID, health) != nil && health.GetMessage() == message })
	}
	waits("condition MountPointStatuses.storage.cosi.dev/data: there is none")
	n.Apply("data", &storagepb.MountPointStatus{Reason: "NoDevice", Message: "no such device"})
	waits("condition MountPointStatuses.storage.cosi.dev/data: NoDevice no such device")
	n.Apply("data", &storagepb.MountPointStatus{Ready: true})
	n.waits("to-2", reasonSucceeded)
}

func TestRefusals(t *testing.T) {
	digest := strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		upgrade *machinepb.Upgrade
		change  func(n *node, m *machine)
		want    string
	}{
		"no source":   {&machinepb.Upgrade{Digest: digest}, nil, "want one of url, pushed and previous"},
		"two sources": {&machinepb.Upgrade{Url: "http://x", Pushed: true, Digest: digest}, nil, "want one of url, pushed and previous"},
		"no digest":   {&machinepb.Upgrade{Pushed: true}, nil, "digest: missing"},
		"no policy": {&machinepb.Upgrade{Pushed: true, Digest: digest}, func(n *node, _ *machine) { n.Delete(nodeID, &machinepb.UpgradePolicy{}) },
			"no UpgradePolicies that is in force says whose upgrades are taken: cosictl explain upgradepolicy"},
		"a policy that is wrong": {&machinepb.Upgrade{Pushed: true, Digest: digest}, func(n *node, _ *machine) {
			n.Apply(nodeID, &machinepb.UpgradePolicy{Keys: []string{"x"}, AllowUnsigned: true})
		}, "no UpgradePolicies that is in force says whose upgrades are taken: cosictl explain upgradepolicy"},
		"another version": {&machinepb.Upgrade{Previous: true, Version: "0.8"}, nil, "the other slot holds version 0.9.0"},
		"nothing to go back to": {&machinepb.Upgrade{Previous: true}, func(_ *node, m *machine) {
			if err := m.withESP(m.forget); err != nil {
				t.Fatal(err)
			}
		}, "the other slot holds no good version"},
		"no entry of what runs": {&machinepb.Upgrade{Pushed: true, Digest: digest}, func(_ *node, m *machine) { m.root[0]++ },
			"no boot entry boots the version that runs: there would be nothing to go back to"},
	} {
		t.Run(name, func(t *testing.T) {
			n, a, _ := newNode(t)
			m := n.disk.machine(a, "root-a")
			if test.change != nil {
				test.change(n, m)
			}
			n.run(m, nil)
			n.Apply("x", test.upgrade)
			if is := n.waits("x", reasonRefused); is.GetMessage() != test.want || !is.GetDone() {
				t.Errorf("status: %v; want %q", is, test.want)
			}
		})
	}
}

func TestARefusalOfWhatArrivesSaysWhy(t *testing.T) {
	n, _, _ := newNode(t)
	n.Apply(nodeID, &machinepb.UpgradePolicy{})
	n.boot()
	file, digest := newImage(t, "2.0.0").file(t, nil)
	n.Apply("x", &machinepb.Upgrade{Pushed: true, Digest: digest})
	n.waits("x", reasonReceiving)
	n.push("x", digest, file)
	if is := n.waits("x", reasonRefused); is.GetMessage() != "it is not signed, and UpgradePolicies does not allow that" {
		t.Errorf("status: %v", is)
	}
}

func TestANodeWithoutSlots(t *testing.T) {
	n, _, _ := newNode(t)
	n.run(nil, errNoSlot)
	n.Apply("x", &machinepb.Upgrade{Previous: true})
	if is := n.waits("x", reasonRefused); is.GetMessage() != errNoSlot.Error() {
		t.Errorf("status: %v", is)
	}
	health := &machinepb.BootHealthStatus{}
	if n.Get(nodeID, health); !health.GetReady() || health.GetReason() != "NoSlot" {
		t.Errorf("health: %v", health)
	}
}

func TestItWaitsForItsTime(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	n.boot()
	at := time.Now().Add(3 * time.Second)
	n.Apply("later", &machinepb.Upgrade{Previous: true, At: timestamppb.New(at)})
	if is := n.waits("later", reasonStaged); !strings.HasPrefix(is.GetMessage(), "the node reboots into it at 20") {
		t.Errorf("status: %v", is)
	}
	n.waits("later", reasonRebooting)
	if now := time.Now(); now.Before(at) {
		t.Errorf("%v too early", at.Sub(now))
	}
}
