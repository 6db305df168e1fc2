package vmtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
)

const reboot = `
metadata: {type: ShutdownRequests.power.cosi.dev, id: test}
spec: {action: REBOOT, reason: the test wants it}
`

// inhibitors are what two clients hold: one wants a second, one will not have it at all.
const inhibitors = `
metadata: {type: ShutdownInhibitors.power.cosi.dev, id: backup}
spec: {mode: DELAY, holder: backup of db3, reason: a snapshot is being written, limit: 1s, lease: 10m}
---
metadata: {type: ShutdownInhibitors.power.cosi.dev, id: raid}
spec: {mode: BLOCK, holder: raid monitor, reason: a disk is being replaced, lease: 10m}
`

// refused waits until a request is.
func refused(t *testing.T, n *vmtest.Node, id string) {
	t.Helper()
	status := &powerpb.ShutdownStatus{}
	n.Until(t, "shutdownstatuses", id, status, func(*resourcepb.Metadata) bool { return status.GetReason() == "Refused" })
	if h := status.GetHolders(); len(h) != 1 || h[0].GetHolder() != "raid monitor" || status.GetReady() {
		t.Errorf("%s: %v; want that it names the raid monitor", id, status)
	}
}

// reboot: refused to one who asks while somebody holds a block. With force it is one line of cosictl, and the node is another boot, without
// the request that caused it. powerButton sees that it stays up.
func (c *checks) reboot(t *testing.T) {
	before := c.bootID(t)
	c.Converged(t, c.Apply(t, inhibitors)...)
	c.Apply(t, reboot)
	refused(t, c.Node, "test")
	file := filepath.Join(t.TempDir(), "reboot.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(reboot, "spec: {", "spec: {force: true, ", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	from := c.Console.Position()
	c.outside.cosictl(t, "apply", "-f", file)
	c.Expect(t, from, `engine: .*rebooting`)
	c.Expect(t, from, `reboot: Restarting system`)
	c.Ready(t)
	if c.bootID(t) == before {
		t.Error("the node answers with the boot that was before")
	}
	for _, kind := range []string{"shutdownrequests", "shutdownstatuses", "shutdowninhibitors"} {
		left, err := c.Client.List(c.Patience(t, patience), c.Kind(t, kind))
		if err != nil || len(left) > 0 {
			t.Errorf("%s after the reboot: %v, %v; want none", kind, left, err)
		}
	}
}

func (c *checks) bootID(t *testing.T) string {
	t.Helper()
	var machine machinepb.MachineStatus
	if c.Get(t, "machine", "machine", &machine); machine.GetBootId() == "" || !machine.GetReady() {
		t.Fatalf("the machine: %v", &machine)
	}
	return machine.GetBootId()
}

// powerButton: the first press is refused, as somebody holds a block; the second one is an orderly power-off, quickly, with a file system
// mounted. The host finds the marker on the data disk and nowhere
// else: the disk that the image was booted from is as it was, the bit that the test has flipped apart.
func (c *checks) powerButton(t *testing.T) {
	boot := c.bootID(t)
	c.demo(t, "rebooted")
	from := c.Console.Position()
	c.Converged(t, c.Apply(t, mountPoint("pressed", "/dev/vdb"))...)
	c.Expect(t, from, `marker: .*wrote `+target("pressed")+`/cosi-marker`)
	if c.bootID(t) != boot {
		t.Error("the node has rebooted again")
	}
	c.Converged(t, c.Apply(t, inhibitors)...)
	before := c.clock(t)
	if err := c.Monitor.Execute(c.Patience(t, patience), "system_powerdown", nil, nil); err != nil {
		t.Fatal(err)
	}
	refused(t, c.Node, "power-button")
	wall := c.PressPower(t)
	c.Expect(t, from, `power: .*refused by raid monitor \(a disk is being replaced\)`)
	c.Expect(t, from, `power: .*waits for backup of db3 \(a snapshot is being written\)`)
	c.Expect(t, from, `engine: .*powering off`)
	took := seconds(t, c.Expect(t, from, `\[ *(\d+\.\d+)\] reboot: Power down`)[1]) - before
	t.Logf("power-off took %v of the node's time, %v of ours", took, wall)
	if took <= 0 || took > 10*time.Second {
		t.Errorf("power-off took %v; want some time, and at most 10 s", took)
	}
	vmtest.CheckExt4(t, c.data)
	c.marked(t, c.data, "pressed")
	mend(t, c.system, c.damage)
	vmtest.CheckUnwritten(t, c.system, "test")
}

// nobodysRole is a resource that changes nothing.
const nobodysRole = `
metadata: {type: Roles.machine.cosi.dev, id: nobodys}
spec: {names: [nobody], rules: [{verbs: [get], kinds: [MachineStatuses.machine.cosi.dev]}]}
`

// clock is the time since the node's kernel began, at a moment that has just passed there: that of a write.
func (c *checks) clock(t *testing.T) time.Duration {
	t.Helper()
	var machine machinepb.MachineStatus
	c.Get(t, "machine", "machine", &machine)
	written := c.Apply(t, nobodysRole)[0].GetMetadata().GetCreated().AsTime()
	return written.Sub(machine.GetBooted().AsTime())
}

// seconds reads a time as the kernel's log has it.
func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text + "s")
	if err != nil {
		t.Fatal(err)
	}
	return d
}
