package vmtest_test

import (
	"path/filepath"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
)

// TestANodeThatMakesItsOwnKey: its user data holds no secret. What its console shows is trusted once, and the node is known by it when the
// runtime was killed, and after a reboot.
func TestANodeThatMakesItsOwnKey(t *testing.T) {
	t.Parallel()
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
	n.Apply(t, reboot)
	n.Expect(t, from, `reboot: Restarting system`)
	n.Expect(t, from, `fingerprint SHA-256 `+shown)
	known("after the reboot")
	n.PressPower(t)
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
