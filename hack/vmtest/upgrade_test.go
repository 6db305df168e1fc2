package vmtest_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/hack/versions"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// breakage is a version that a node must not stay with.
type breakage struct {
	name string
	// definition is what makes it so; DEADLINE in it is enough for the node to be ready in. change changes what the file holds.
	definition string
	change     func(is *upgrade.Manifest, kernel []byte) []byte
	// watch, if there is one, sees to it that the node breaks, until ctx is done.
	watch func(ctx context.Context, t *testing.T, k *keeper)
	// console is what each of its boots ends with, reason what the status says in the end.
	console, reason string
}

// broken are versions that a node must not stay with, by what COSI_TEST_UPGRADE names them.
var broken = []breakage{
	{"panic", "kernel: {arguments: [rdinit=/nothing, panic=1]}", nil, nil, `Kernel panic - not syncing: No working init found`,
		`booted 3 times, it never came so far as to say what was wrong`},
	{"unhealthy", `resources:
  - metadata: {type: BootHealths.machine.cosi.dev, id: node}
    spec: {deadline: DEADLINE, conditions: [{type: MountPointStatuses.storage.cosi.dev, id: nothing}]}`, nil, nil,
		`rebooting: .*the new version is not healthy after DEADLINE: condition MountPointStatuses.storage.cosi.dev/nothing: there is none`,
		`booted 3 times, not healthy after DEADLINE: condition MountPointStatuses.storage.cosi.dev/nothing: there is none`},
	// PID 1 says so twice: at once, and when it reboots.
	{"root", "", otherRoot, nil, `PID 1 cannot go on: no slot holds the root.*?PID 1 cannot go on: no slot holds the root`,
		`booted 3 times, it never came so far as to say what was wrong`},
	// An engine that is not called as the kernel calls /init does not know what it is for, and exits.
	{"exit", "kernel: {arguments: [rdinit=//init, something, panic=1]}", nil, nil, `Kernel panic - not syncing: Attempted to kill init!`,
		`booted 3 times, it never came so far as to say what was wrong`},
	// A kernel that panics and does not reboot stands still, but for its timers.
	{"hang", "kernel: {arguments: [unknown_nmi_panic, panic=0]}\n" + neverHealthy, nil, hang, `Kernel panic - not syncing: NMI`,
		`booted 3 times, it never came so far as to say what was wrong`},
	// A kernel that spins before there is a PID 1, and is impatient: 4 s, not 20, and another until it reboots, not 30.
	{"lockup", "kernel: {arguments: [nokaslr, loglevel=7, watchdog_thresh=2, panic=1]}", nil, lockUp, `Kernel panic - not syncing: softlockup: hung tasks`,
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

// TestUpgrade: a node is upgraded by who may, and keeps what it was told; versions that are broken are left again by themselves, and not tried
// again. "make test-upgrade" runs it, with WHAT "all", or a firmware and some of what follows the first upgrade: "bios migrate panic root".
// Without a firmware it is UEFI. Otherwise a node is upgraded once, under a BIOS, which boots faster.
func TestUpgrade(t *testing.T) {
	wanted, takes := strings.Fields(os.Getenv("COSI_TEST_UPGRADE")), 800
	if len(wanted) == 0 {
		wanted, takes = []string{string(node.BIOS)}, 105
	}
	vmtest.Parallel(t, takes)
	vmtest.Host(t)
	all := slices.Contains(wanted, "all")
	o := buildOutside(t)
	for _, firmware := range []node.Boot{node.UEFI, node.BIOS} {
		if !all && (firmware == node.BIOS) != slices.Contains(wanted, string(node.BIOS)) {
			continue
		}
		t.Run(string(firmware), func(t *testing.T) {
			u := upgraded(t, o, firmware)
			if all || slices.Contains(wanted, "migrate") {
				t.Run("migrate", u.migrates)
			}
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
	server   string // of what is in it, as the node sees it
	firmware string
	key      ed25519.PrivateKey // of who may upgrade the node
	ready    time.Duration      // how long the node took to be, the last time
}

// upgraded returns a node that has been upgraded once, from a URL, by who may.
func upgraded(t *testing.T, o *outside, firmware node.Boot) *upgrading {
	t.Helper()
	u := &upgrading{keeper: keeper{outside: o}, dir: t.TempDir(), firmware: strings.ToUpper(string(firmware))}
	server := httptest.NewServer(http.FileServer(http.Dir(u.dir)))
	t.Cleanup(server.Close)
	u.server = strings.Replace(server.URL, "127.0.0.1", "10.0.2.2", 1)
	policy := u.newKey(t)
	u.workshop(t, "before", workshopBefore)
	good := u.build(t, "good", "extensions: [before/workshop]")
	log := newDiskLog(t)
	options := vmtest.Options{
		File: vmtest.SystemDisk(t, "base", upgradedDisk), Keep: true, Log: log.Name(), Boot: firmware, Documents: kept("userdata") + "---\n" + policy,
	}
	u.Node = vmtest.Start(t, options)
	u.Ready(t)
	u.Expect(t, 0, `engine: COSI .* from /dev/vda3, which dm-verity checks`)
	o.connect(t, u.Node)
	u.Apply(t, kept("acknowledged"))
	u.refusesOthers(t, good)
	u.slot(t, "root-a", "Good", true)
	u.slot(t, "root-b", "Empty", false)

	from, begun := u.Console.Position(), log.count(t)
	u.cosictl(t, u.fetch(t, good)...)
	u.Expect(t, from, `engine: this boot is a trial of version`)
	u.Expect(t, from, `engine: COSI .* from /dev/vda4, which dm-verity checks`)
	u.Expect(t, from, `upgrade: version \S+ is good`)
	u.runs(t, "root-b", "root-a")
	u.cuts(t, options, log, begun, good)
	return u
}

// refusesOthers: an upgrade that nobody has signed, and one that somebody else has, come no further than their first bytes.
func (u *upgrading) refusesOthers(t *testing.T, good string) {
	t.Helper()
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []struct {
		name, why string
		key       crypto.Signer
	}{
		{"unsigned", "it is not signed, and UpgradePolicies does not allow that", nil},
		{"foreign", "it is signed by none of the 1 keys that UpgradePolicies names", other},
	} {
		file := filepath.Join(u.dir, of.name+".upgrade")
		rewrite(t, good, file, of.key, nil)
		if text, err := u.outside.long(t, "upgrade", file); err == nil || !strings.Contains(text, "Refused: "+of.why) {
			t.Errorf("%s: %v\n%s; want it refused: %s", of.name, err, text, of.why)
		}
	}
}

// fetch are the arguments that have the node fetch a version.
func (u *upgrading) fetch(t *testing.T, file string) []string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"upgrade", u.server + "/" + filepath.Base(file), "--digest", fmt.Sprintf("%x", sha256.Sum256(data))}
}

// cosictl runs one that takes as long as a reboot, and must succeed.
func (u *upgrading) cosictl(t *testing.T, args ...string) {
	t.Helper()
	if text, err := u.outside.long(t, args...); err != nil {
		t.Fatalf("cosictl %s: %v\n%s", strings.Join(args, " "), err, text)
	}
}

// runs waits until the node is ready, and fails the test unless it runs from one slot, can go back to another, and has kept what it was told.
func (u *upgrading) runs(t *testing.T, running, other string) {
	t.Helper()
	u.Ready(t)
	u.slot(t, running, "Good", true)
	u.slot(t, other, "Good", false)
	u.keeps(t)
	m := &machinepb.MachineStatus{}
	u.Until(t, "machine", "machine", m, func(*resourcepb.Metadata) bool {
		for _, s := range m.GetStages() {
			if s.GetName() == "ready" {
				u.ready = time.Duration(s.GetMilliseconds()) * time.Millisecond
			}
		}
		return m.GetReady()
	})
}

// leaves has the node try a version that is broken.
func (u *upgrading) leaves(t *testing.T, b breakage) {
	deadline := max(3*u.ready, 10*time.Second).Round(time.Second)
	timely := func(text string) string { return strings.ReplaceAll(text, "DEADLINE", deadline.String()) }
	file := u.build(t, b.name, strings.ReplaceAll(b.definition, "DEADLINE", fmt.Sprintf("%ds", deadline/time.Second)))
	if b.change != nil {
		rewrite(t, file, file, u.key, b.change)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	if b.watch != nil {
		watching.Go(func() { b.watch(ctx, t, &u.keeper) })
	}
	from := u.Console.Position()
	text, err := u.outside.long(t, u.fetch(t, file)...)
	cancel()
	watching.Wait()
	if err == nil || !strings.Contains(text, "RolledBack") || !strings.Contains(text, timely(b.reason)) {
		t.Fatalf("%v\n%s; want it rolled back: %s", err, text, timely(b.reason))
	}
	u.Expect(t, from, `(?s)(?:`+timely(b.console)+`.*){3}`)
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

// newKey makes the key of who may upgrade the node, and returns the policy that says so.
func (u *upgrading) newKey(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	u.key = private
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	known, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	half := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: known}))
	writeFile(t, filepath.Join(u.dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	writeFile(t, filepath.Join(u.dir, "key.pub"), half)
	return fmt.Sprintf("metadata: {type: UpgradePolicies.machine.cosi.dev, id: node}\nspec: {keys: [%q]}\n", half)
}

// build builds the base image with more in its definition as the file of an upgrade, and signs it.
func (u *upgrading) build(t *testing.T, name, more string) string {
	t.Helper()
	file, err := versions.Build(t.Context(), filepath.Join("..", ".."), u.dir, name, "upgrade: {key: key.pem, public_key: key.pub}\n"+more, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// otherRoot has the kernel of an upgrade wish for a root that there is nowhere.
func otherRoot(is *upgrade.Manifest, kernel []byte) []byte {
	argument, other := "roothash="+is.Root.Hash, "roothash="+strings.Repeat("0", len(is.Root.Hash))
	is.BIOS = strings.Replace(is.BIOS, argument, other, 1)
	return bytes.Replace(kernel, []byte(argument), []byte(other), 1)
}

// rewrite writes what change, if there is one, makes of an upgrade in the file from into the file to, signed with a key unless that is nil.
func rewrite(t *testing.T, from, to string, key crypto.Signer, change func(is *upgrade.Manifest, kernel []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(from)
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
	is, other := u.Manifest, kernel.Bytes()
	is.Disk = nil // it would be one of the kernel as it was
	if change != nil {
		other = change(&is, other)
	}
	if err := upgrade.Write(&changed, is, key, bytes.NewReader(root.Bytes()), bytes.NewReader(other), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, changed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}
