// Package vmtest runs tests on a node in a VM. A test starts a node, drives it through the client
// library and over QMP, and reads its serial console; a test that fails shows the console's tail.
//
// A boot is expensive: tests start one node and run their checks on it one after the other, each as a
// subtest. Tests run beside each other, as many as "go test -parallel" says, those first that take longest. What they wait
// for has a deadline that grows where everything is emulated.
package vmtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Options say which node is started. Definition and Format name a file of make image; the rest is as
// in node.Options.
type Options struct {
	Definition   string // "" is "base"
	Format       string // the suffix: "raw", "qcow2", "iso", "efi", "ipxe"; "" is "raw"
	File         string // an image by its path, instead of Definition and Format
	NoImage      bool   // it boots from a device that Extra brings
	Keep         bool   // what the guest writes to the image stays
	Log          string // as in node.Options
	Boot         node.Boot
	Stick        bool // the image is a USB stick
	CommandLine  string
	Memory       int
	Disks        []qemu.Disk
	HotplugPorts int
	USB          bool
	NoReboot     bool
	Backend      string
	Extra        []string

	// Documents are handed in as user data, behind those that let the test in.
	Documents string
	// UserData is a file that is handed in instead of all that.
	UserData string
	// NoUserData hands in nothing: nobody can talk to the node then, unless it finds Identity's user data elsewhere.
	NoUserData bool
	// Identity is the node's; nil makes one.
	Identity *node.Identity
}

// Node is a node under test.
type Node struct {
	*node.Node
	Identity *node.Identity

	// Client has the admin's rights. It is nil until Ready has returned.
	Client *client.Client

	host *qemu.Host
}

// Arch is the architecture of the nodes under test: what the variable COSI_TEST_ARCH says, amd64 if it says nothing.
func Arch() string { return cmp.Or(os.Getenv("COSI_TEST_ARCH"), qemu.AMD64) }

// DefinitionFile is the file in images/ that describes the image called definition for machines of Arch.
func DefinitionFile(definition string) string {
	switch {
	case Arch() == qemu.AMD64:
		return definition + ".yaml"
	case definition == "base":
		return Arch() + ".yaml"
	}
	return definition + "-" + Arch() + ".yaml"
}

// standIns are the variables that name another definition in the place of one: the same on another kernel.
var standIns = map[string]string{"base": "COSI_TEST_BASE", "test": "COSI_TEST_DEFINITION"}

// StandIn is the definition that is tested in the place of one: itself, unless one of standIns says another.
func StandIn(definition string) string { return cmp.Or(os.Getenv(standIns[definition]), definition) }

// Image returns a file of make image: cosi-DEFINITION-ARCH.FORMAT, of what stands in for the definition, if something does. A missing one skips
// the test, except where CI is set.
func Image(t testing.TB, definition, format string) string {
	t.Helper()
	definition = StandIn(definition)
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(root, "build", fmt.Sprintf("cosi-%s-%s.%s", definition, Arch(), format))
	if _, err := os.Stat(image); err != nil {
		missing(t, "%v (make image DEFINITION=%s)", err, strings.TrimSuffix(DefinitionFile(definition), ".yaml"))
	}
	return image
}

// Host returns what this machine runs VMs with. Without a usable QEMU the test is skipped, except
// where CI is set.
func Host(t testing.TB) *qemu.Host {
	t.Helper()
	h, err := qemu.Find(t.Context(), Arch())
	if errors.Is(err, qemu.ErrNoQEMU) {
		missing(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Start starts a node, which ends with the test. It does not wait: see Ready and Expect.
func Start(t testing.TB, o Options) *Node {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a VM")
	}
	if o.Definition == "" {
		o.Definition = "base"
	}
	if o.Format == "" {
		o.Format = "raw"
	}
	n := &Node{host: Host(t)}
	dir := t.TempDir()
	if o.File == "" && !o.NoImage {
		o.File = Image(t, o.Definition, o.Format)
	}
	if n.Identity = o.Identity; n.Identity == nil {
		n.Identity = Identity(t)
	}
	var err error
	n.Node, err = node.Start(t.Context(), n.host, node.Options{
		Image: o.File, Boot: o.Boot, Stick: o.Stick, Identity: n.Identity, UserData: n.userData(t, dir, o), CommandLine: o.CommandLine,
		Keep: o.Keep, Log: o.Log, Memory: o.Memory, Disks: o.Disks, HotplugPorts: o.HotplugPorts, USB: o.USB, NoReboot: o.NoReboot,
		Backend: o.Backend, Extra: o.Extra,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.end(t) })
	return n
}

// Identity returns fresh keys for a node called "cosi".
func Identity(t testing.TB) *node.Identity {
	t.Helper()
	id, err := node.LoadIdentity(t.TempDir(), "cosi", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// userData writes the node's user data into dir, unless there is a file of it, and returns the file.
func (n *Node) userData(t testing.TB, dir string, o Options) string {
	t.Helper()
	if o.NoUserData {
		return ""
	}
	if o.UserData != "" {
		return o.UserData
	}
	data, err := n.Identity.UserData()
	if err != nil {
		t.Fatal(err)
	}
	if o.Documents != "" {
		data = append(append(data, "---\n"...), o.Documents...)
	}
	file := filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (n *Node) end(t testing.TB) {
	if n.Client != nil {
		n.Client.Close()
	}
	n.Kill()
	if t.Failed() {
		t.Logf("the console's last lines:\n%s", n.Console.Tail(60))
	}
}

// Slower is how much longer things take here than on hardware, roughly.
func (n *Node) Slower() time.Duration { return n.host.Slower() }

// Patience returns a context that ends when something that takes d on hardware takes too long here.
func (n *Node) Patience(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d*n.host.Slower())
	t.Cleanup(cancel)
	return ctx
}

// boot is how long a node may take to be ready, on hardware.
const boot = time.Minute

// Ready waits until the node is ready and connects Client to it.
func (n *Node) Ready(t testing.TB) {
	t.Helper()
	n.Serves(t)
	if _, err := n.WaitReady(n.Patience(t, boot), n.Client); err != nil {
		t.Fatal(err)
	}
}

// Serves waits until the node's API answers, be it ready or not, and connects Client to it.
func (n *Node) Serves(t testing.TB) {
	t.Helper()
	if err := n.WaitTLS(n.Patience(t, boot)); err != nil {
		t.Fatal(err)
	}
	c, err := n.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if n.Client != nil { // the node was restarted
		n.Client.Close()
	}
	n.Client = c
}

// Expect waits until the console, from a position on, shows what matches pattern, and returns the
// match and its groups.
func (n *Node) Expect(t testing.TB, from int, pattern string) []string {
	t.Helper()
	m, err := n.Console.Wait(n.Patience(t, boot), from, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// PressPower presses the power button and waits until the node has powered off. It returns how long
// that took.
func (n *Node) PressPower(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	if err := n.PowerDown(n.Patience(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// moduleRoot is the directory above the working directory that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}
