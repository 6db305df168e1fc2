package vmtest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
)

const reboot = `
metadata: {type: ShutdownRequests.power.cosi.dev, id: test}
spec: {action: REBOOT, reason: the test wants it}
`

// reboot: one line of cosictl, and the node is another boot, without the request that caused it. powerButton sees that it stays up.
func (c *checks) reboot(t *testing.T) {
	before := c.bootID(t)
	file := filepath.Join(t.TempDir(), "reboot.yaml")
	if err := os.WriteFile(file, []byte(reboot), 0o600); err != nil {
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
	for _, kind := range []string{"shutdownrequests", "shutdownstatuses"} {
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

// powerButton: an orderly power-off, quickly, with a file system mounted. The host finds the marker on the data disk and nowhere
// else: of the disk that the image was booted from not one sector was written.
func (c *checks) powerButton(t *testing.T) {
	boot := c.bootID(t)
	c.demo(t, "rebooted")
	from := c.Console.Position()
	c.Converged(t, c.Apply(t, mountPoint("pressed", "/dev/vdb"))...)
	c.Expect(t, from, `marker: .*wrote `+target("pressed")+`/cosi-marker`)
	if c.bootID(t) != boot {
		t.Error("the node has rebooted again")
	}
	if n := c.written(t, "system"); n != 0 {
		t.Errorf("%d bytes were written to the image's disk", n)
	}
	if c.written(t, "data") == 0 {
		t.Error("nothing was written to the data disk, QEMU says: it cannot tell of the image's disk then")
	}
	before := c.clock(t)
	wall := c.PressPower(t)
	c.Expect(t, from, `engine: .*powering off`)
	took := seconds(t, c.Expect(t, from, `\[ *(\d+\.\d+)\] reboot: Power down`)[1]) - before
	t.Logf("power-off took %v of the node's time, %v of ours", took, wall)
	if took <= 0 || took > 10*time.Second {
		t.Errorf("power-off took %v; want some time, and at most 10 s", took)
	}
	vmtest.CheckExt4(t, c.data)
	c.marked(t, c.data, "pressed")
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

// written tells how many bytes the guest has written to a disk since its power-on.
func (c *checks) written(t *testing.T, disk string) uint64 {
	t.Helper()
	var all []struct {
		Device string `json:"device"`
		Stats  struct {
			Bytes uint64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := c.Monitor.Execute(c.Patience(t, patience), "query-blockstats", nil, &all); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Device == disk+"-drive" {
			return d.Stats.Bytes
		}
	}
	t.Fatalf("QEMU has no disk %q: %v", disk, all)
	return 0
}
