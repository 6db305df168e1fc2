package vmtest_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/hack/versions"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// breakage is a version that a node must not stay with.
type breakage struct {
	name string
	// definition is what makes it so; change changes what the file holds.
	definition string
	change     func(t *testing.T, file string)
	// watch, if there is one, sees to it that the node breaks, until ctx is done.
	watch func(ctx context.Context, t *testing.T, k *keeper)
	// console is what each of its boots ends with.
	console string
	// reason is what the status says in the end.
	reason string
}

// broken are versions that a node must not stay with, by what COSI_TEST_UPGRADE names them.
var broken = []breakage{
	{"panic", "kernel: {arguments: [rdinit=/nothing, panic=1]}", nil, nil, `Kernel panic - not syncing: No working init found`,
		`booted 3 times, it never came so far as to say what was wrong`},
	{"unhealthy", `resources:
  - metadata: {type: BootHealths.machine.cosi.dev, id: node}
    spec: {deadline: 10s, conditions: [{type: MountPointStatuses.storage.cosi.dev, id: nothing}]}`, nil, nil, `rebooting: .*the new version is not healthy after 10s`,
		`booted 3 times, not healthy after 10s: `},
	// PID 1 says so twice: at once, and when it reboots.
	{"root", "", otherRoot, nil, `PID 1 cannot go on: no slot holds the root.*?PID 1 cannot go on: no slot holds the root`,
		`booted 3 times, it never came so far as to say what was wrong`},
	// An engine that is not called as the kernel calls /init does not know what it is for, and exits.
	{"exit", "kernel: {arguments: [rdinit=//init, something, panic=1]}", nil, nil, `Kernel panic - not syncing: Attempted to kill init!`,
		`booted 3 times, it never came so far as to say what was wrong`},
	// A kernel that panics and does not reboot stands still, but for its timers.
	{"hang", "kernel: {arguments: [unknown_nmi_panic, panic=0]}\n" + neverHealthy, nil, hang, `Kernel panic - not syncing: NMI`,
		`booted 3 times, it never came so far as to say what was wrong`},
}

// neverHealthy is a version that has 5 minutes to be healthy, and never is.
const neverHealthy = `resources:
  - metadata: {type: BootHealths.machine.cosi.dev, id: node}
    spec: {conditions: [{type: MountPointStatuses.storage.cosi.dev, id: nothing}]}`

// hang stops each trial as soon as its watchdog is armed.
func hang(ctx context.Context, t *testing.T, k *keeper) {
	for from := k.Console.Position(); ; {
		m, err := k.Console.Wait(ctx, from, regexp.MustCompile(`(?s)^.*?engine: this boot is a trial of .*? stage runtime after`))
		if err != nil {
			return
		}
		from += len(m[0])
		if err := k.Monitor.Execute(ctx, "inject-nmi", nil, nil); err != nil {
			t.Errorf("inject-nmi: %v", err)
			return
		}
	}
}

// TestUpgrade: a node is upgraded, and keeps what it was told; versions that are broken are left again by themselves, and not tried again.
// "make test-upgrade" runs it, with WHAT "all", or a firmware and what is broken: "bios panic root". Without a firmware it is UEFI.
func TestUpgrade(t *testing.T) {
	wanted := strings.Fields(os.Getenv("COSI_TEST_UPGRADE"))
	if len(wanted) == 0 {
		t.Skip("make test-upgrade runs it: it boots a node a dozen times")
	}
	vmtest.Parallel(t, 600)
	vmtest.Host(t)
	all := slices.Contains(wanted, "all")
	o := buildOutside(t)
	for _, firmware := range []node.Boot{node.UEFI, node.BIOS} {
		if !all && (firmware == node.BIOS) != slices.Contains(wanted, string(node.BIOS)) {
			continue
		}
		t.Run(string(firmware), func(t *testing.T) {
			u := upgraded(t, o, firmware)
			for _, b := range broken {
				if all || slices.Contains(wanted, b.name) {
					t.Run(b.name, func(t *testing.T) { u.leaves(t, b) })
				}
			}
			u.PressPower(t)
		})
	}
}

// upgrading is a node that is upgraded.
type upgrading struct {
	keeper
	dir      string // of the versions
	firmware string
}

// upgraded returns a node that has been upgraded once.
func upgraded(t *testing.T, o *outside, firmware node.Boot) *upgrading {
	t.Helper()
	u := &upgrading{keeper: keeper{outside: o}, dir: t.TempDir(), firmware: strings.ToUpper(string(firmware))}
	good := buildUpgrade(t, u.dir, "good", "kernel: {arguments: [cosi.test=good]}")
	u.Node = vmtest.Start(t, vmtest.Options{
		File: vmtest.SystemDisk(t, "base", 2*gib), Keep: true, Boot: firmware,
		Documents: kept("userdata") + "---\nmetadata: {type: UpgradePolicies.machine.cosi.dev, id: node}\nspec: {allow_unsigned: true}\n",
	})
	u.Ready(t)
	u.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	o.connect(t, u.Node)
	u.Apply(t, kept("acknowledged"))
	u.slot(t, "root-a", "Good", true)
	u.slot(t, "root-b", "Empty", false)

	from := u.Console.Position()
	text, err := o.long(t, "upgrade", good)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	u.Expect(t, from, `engine: this boot is a trial of version`)
	u.Expect(t, from, `engine: COSI .* from /dev/vda4, which dm-verity checks`)
	u.Expect(t, from, `upgrade: version \S+ is good`)
	u.Ready(t)
	u.slot(t, "root-b", "Good", true)
	u.slot(t, "root-a", "Good", false)
	u.keeps(t)
	return u
}

// leaves has the node try a version that is broken.
func (u *upgrading) leaves(t *testing.T, b breakage) {
	file := buildUpgrade(t, u.dir, b.name, b.definition)
	if b.change != nil {
		b.change(t, file)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	if b.watch != nil {
		watching.Go(func() { b.watch(ctx, t, &u.keeper) })
	}
	from := u.Console.Position()
	text, err := u.outside.long(t, "upgrade", file)
	cancel()
	watching.Wait()
	if err == nil || !strings.Contains(text, "RolledBack") || !strings.Contains(text, b.reason) {
		t.Fatalf("%v\n%s; want it rolled back: %s", err, text, b.reason)
	}
	u.Expect(t, from, `(?s)(?:`+b.console+`.*){3}`)
	u.Ready(t)
	u.slot(t, "root-b", "Good", true)
	u.slot(t, "root-a", "Bad", false)
	u.keeps(t)
}

// keeps fails the test unless what was written before the upgrade is there.
func (k *keeper) keeps(t *testing.T) {
	t.Helper()
	if !k.state(t).GetDurable() || !k.has(t, "acknowledged") || !k.has(t, "userdata") {
		t.Errorf("the state: %v, what was acknowledged %v, user data %v", k.state(t), k.has(t, "acknowledged"), k.has(t, "userdata"))
	}
}

// slot fails the test unless one is as it should be.
func (u *upgrading) slot(t *testing.T, id, state string, running bool) {
	t.Helper()
	e := &machinepb.BootEntry{}
	if u.Get(t, "bootentries", id, e); e.GetState() != state || e.GetRunning() != running || e.GetNext() != running || e.GetFirmware() != u.firmware {
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
	file, err := versions.Build(t.Context(), filepath.Join("..", ".."), dir, name, more, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return file
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
	is, argument := u.Manifest, "roothash="+u.Manifest.Root.Hash
	other := "roothash=" + strings.Repeat("0", len(is.Root.Hash))
	wrong := bytes.Replace(kernel.Bytes(), []byte(argument), []byte(other), 1)
	is.BIOS = strings.Replace(is.BIOS, argument, other, 1)
	if err := upgrade.Write(&changed, is, nil, bytes.NewReader(root.Bytes()), bytes.NewReader(wrong)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, changed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
