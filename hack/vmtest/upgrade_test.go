package vmtest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/hack/vmtest"
	images "github.com/cosi-os/cosi/images/build"
)

// broken are versions that a node must not stay with, by what COSI_TEST_UPGRADE names them.
var broken = []struct {
	name string
	// definition is what makes it so; change changes what the file holds.
	definition string
	change     func(t *testing.T, file string)
	// console is what each of its boots ends with.
	console string
	// reason is what the status says in the end.
	reason string
}{
	{"panic", "kernel: {arguments: [rdinit=/nothing, panic=1]}", nil, `Kernel panic - not syncing: No working init found`,
		`booted 3 times, it never came so far as to say what was wrong`},
	{"unhealthy", `resources:
  - metadata: {type: BootHealths.machine.cosi.dev, id: node}
    spec: {deadline: 10s, conditions: [{type: MountPointStatuses.storage.cosi.dev, id: nothing}]}`, nil, `rebooting: .*the new version is not healthy after 10s`,
		`booted 3 times, not healthy after 10s: `},
	{"root", "", otherRoot, `PID 1 cannot go on: no slot holds the root`, `booted 3 times, it never came so far as to say what was wrong`},
}

// TestUpgrade: a node is upgraded, and keeps what it was told; versions that are broken are left again by themselves, and not tried again.
// "make test-upgrade" runs it.
func TestUpgrade(t *testing.T) {
	wanted := os.Getenv("COSI_TEST_UPGRADE")
	if wanted == "" {
		t.Skip("make test-upgrade runs it: it boots a node a dozen times")
	}
	vmtest.Parallel(t, 600)
	vmtest.Host(t)
	dir := t.TempDir()
	o := buildOutside(t)
	good := buildUpgrade(t, dir, "good", "kernel: {arguments: [cosi.test=good]}")
	k := &keeper{outside: o}
	k.Node = vmtest.Start(t, vmtest.Options{
		File: vmtest.SystemDisk(t, "base", 2*gib), Keep: true,
		Documents: kept("userdata") + "---\nmetadata: {type: UpgradePolicies.machine.cosi.dev, id: node}\nspec: {allow_unsigned: true}\n",
	})
	k.Ready(t)
	k.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	o.connect(t, k.Node)
	k.Apply(t, kept("acknowledged"))
	k.slot(t, "root-a", "Good", true)
	k.slot(t, "root-b", "Empty", false)

	from := k.Console.Position()
	text, err := o.long(t, "upgrade", good)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	k.Expect(t, from, `engine: this boot is a trial of version`)
	k.Expect(t, from, `engine: COSI .* from /dev/vda4, which dm-verity checks`)
	k.Expect(t, from, `upgrade: version \S+ is good`)
	k.Ready(t)
	k.slot(t, "root-b", "Good", true)
	k.slot(t, "root-a", "Good", false)
	k.keeps(t)

	for _, b := range broken {
		if wanted != "all" && !strings.Contains(wanted, b.name) {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			file := buildUpgrade(t, dir, b.name, b.definition)
			if b.change != nil {
				b.change(t, file)
			}
			from := k.Console.Position()
			text, err := o.long(t, "upgrade", file)
			if err == nil || !strings.Contains(text, "RolledBack") || !strings.Contains(text, b.reason) {
				t.Fatalf("%v\n%s; want it rolled back: %s", err, text, b.reason)
			}
			k.Expect(t, from, `(?s)(?:`+b.console+`.*){3}`)
			k.Ready(t)
			k.slot(t, "root-b", "Good", true)
			k.slot(t, "root-a", "Bad", false)
			k.keeps(t)
		})
	}
	k.PressPower(t)
}

// keeps fails the test unless what was written before the upgrade is there.
func (k *keeper) keeps(t *testing.T) {
	t.Helper()
	if !k.state(t).GetDurable() || !k.has(t, "acknowledged") || !k.has(t, "userdata") {
		t.Errorf("the state: %v, what was acknowledged %v, user data %v", k.state(t), k.has(t, "acknowledged"), k.has(t, "userdata"))
	}
}

// slot fails the test unless one is as it should be.
func (k *keeper) slot(t *testing.T, id, state string, running bool) {
	t.Helper()
	e := &machinepb.BootEntry{}
	if k.Get(t, "bootentries", id, e); e.GetState() != state || e.GetRunning() != running || e.GetNext() != running || e.GetFirmware() != "UEFI" {
		t.Errorf("%s: %v; want it %s, running: %v", id, e, state, running)
	}
}

// long runs a cosictl that may take as long as a few boots, and returns all that it prints.
func (o *outside) long(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second*o.patienceFactor)
	defer cancel()
	out, err := exec.CommandContext(ctx, o.ctl, append([]string{"--config", o.config}, args...)...).CombinedOutput()
	return string(out), err
}

// buildUpgrade builds the base image with more in its definition as the file of an upgrade.
func buildUpgrade(t *testing.T, dir, name, more string) string {
	t.Helper()
	tree, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(dir, filepath.Join(tree, "images", "base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := images.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	definition := filepath.Join(dir, name+".yaml")
	writeText(t, definition, fmt.Sprintf("name: %s\nextends: %s\n%s\noutputs: [upgrade]\n", name, base, more))
	_, err = images.Run(t.Context(), images.Options{
		Tree: tree, Output: dir, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"),
		Phase: func(string) func(string) { return func(string) {} }, Log: t.Logf,
	}, definition)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "cosi-"+name+"-amd64.upgrade")
}

// otherRoot has the kernel of an upgrade wish for a root that there is nowhere.
func otherRoot(t *testing.T, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u, err := upgrade.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var root, kernel, changed bytes.Buffer
	if err := u.Root(&root); err != nil {
		t.Fatal(err)
	}
	if err := u.Kernel(&kernel); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Replace(kernel.Bytes(), []byte("roothash="+u.Manifest.Root.Hash), []byte("roothash="+strings.Repeat("0", len(u.Manifest.Root.Hash))), 1)
	if err := upgrade.Write(&changed, u.Manifest, nil, bytes.NewReader(root.Bytes()), bytes.NewReader(wrong)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, changed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
