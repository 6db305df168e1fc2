package vmtest_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
)

// TestANodeThatMakesItsOwnKey: its user data holds no secret. What its console shows is trusted once, and the node is known by it when the
// runtime was killed, and after a panic of the kernel. Of that it has a report, which outlives the next boot.
func TestANodeThatMakesItsOwnKey(t *testing.T) {
	vmtest.Parallel(t, 160)
	o := buildOutside(t)
	o.config, o.patienceFactor = filepath.Join(o.dir, "config.yaml"), vmtest.Host(t).Slower()
	pki, userData := filepath.Join(o.dir, "pki"), filepath.Join(o.dir, "user-data.yaml")
	o.cosictl(t, "gen", "ca", "--dir", pki)
	o.cosictl(t, "gen", "client", "me", "--dir", pki)
	o.cosictl(t, "gen", "user-data", "cosi", "--self-signed", "--dir", pki, "-o", userData)
	n := vmtest.Start(t, vmtest.Options{File: vmtest.SystemDisk(t, "test", 2*gib), Keep: true, UserData: userData})
	shown := n.Expect(t, 0, `fingerprint SHA-256 ([0-9a-f]{64})`)[1]
	o.cosictl(t, "trust", n.Context.Endpoint, "--fingerprint", shown, "--client", "me", "--as", "own", "--dir", pki)
	n.Context = pinned(t, o.config, "own")

	known := func(when string) {
		t.Helper()
		n.Ready(t)
		var machine machinepb.MachineStatus
		if n.Get(t, "machine", "machine", &machine); machine.GetFingerprint() != shown {
			t.Errorf("%s the node shows %s; want %s", when, machine.GetFingerprint(), shown)
		}
		o.cosictl(t, "get", "machine")
	}
	known("at first")
	from := n.Console.Position()
	n.Apply(t, "metadata: {type: GaugeRequests.test.cosi.dev, id: kill}\nspec: {kill: runtime}\n")
	n.Expect(t, from, `runtime ended: signal killed`)
	known("after the runtime was killed")
	from = n.Console.Position()
	crashed := time.Now()
	n.Apply(t, gaugeRequest("panic", "sysrq: c"))
	n.Expect(t, from, `Kernel panic - not syncing: sysrq triggered crash`)
	from = n.Console.Position()
	n.Expect(t, from, `fingerprint SHA-256 `+shown)
	known("after the panic")
	report := checkCrashReport(t, n, crashed)
	from = n.Console.Position()
	n.Apply(t, reboot)
	n.Expect(t, from, `fingerprint SHA-256 `+shown)
	known("after the reboot")
	if again := checkCrashReport(t, n, crashed); again != report {
		t.Errorf("after the reboot the report is %s; want %s, and no other", again, report)
	}
	n.PressPower(t)
}

// checkCrashReport: there is one, of what the kernel said last, and the firmware has nothing any more that would become another. It
// returns the report's id.
func checkCrashReport(t *testing.T, n *vmtest.Node, crashed time.Time) string {
	t.Helper()
	report := &eventspb.CrashReport{}
	await(t, n, "crashes", report, func() bool { return true })
	all := list(t, n, "crashes")
	if len(all) != 1 {
		t.Fatalf("%d reports; want one: %v", len(all), all)
	}
	at := report.GetTime().AsTime()
	if report.GetReason() != "Panic" || report.GetMessage() != "Kernel panic - not syncing: sysrq triggered crash" || report.GetSource() != "efi_pstore" ||
		at.Before(crashed.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("report %v", report)
	}
	if text := report.GetText(); !strings.Contains(text, "sysrq: Trigger a crash") || !strings.Contains(text, "Call Trace:") || len(text) > 16<<10 {
		t.Errorf("%d bytes of the log: %s", len(text), text)
	}
	return all[0].GetMetadata().GetId()
}

// pinned reads a context that cosictl has written.
func pinned(t *testing.T, file, name string) client.Context {
	t.Helper()
	config, err := client.LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Context(name)
	if err != nil {
		t.Fatal(err)
	}
	return *c
}
