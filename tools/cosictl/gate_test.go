package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
)

// gate is a node without plugins: engine and runtime as they are on a machine, with the network's port and the local socket.
type gate struct {
	t            *testing.T
	root, socket string
	console      *buffer
	ended        <-chan struct{} // closed when it is down
}

func startGate(t *testing.T) *gate {
	t.Helper()
	runtime, err := buildRuntime()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.MkdirTemp("", "g") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, dir := range []string{"usr/bin", "usr/lib/cosi/plugins"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(runtime, filepath.Join(root, "usr/bin/runtime")); err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, root: root, socket: filepath.Join(root, "run/cosi/runtime.sock"), console: &buffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the node's console:\n%s", g.console)
		}
	})
	g.start()
	return g
}

// start boots the node. It ends with the test, if not before.
func (g *gate) start() {
	g.t.Helper()
	engine, err := buildEngine()
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.Command(engine, "--root", g.root, "--port", "0")
	cmd.Stdout, cmd.Stderr = g.console, g.console
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	g.ended = ended
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // in order: an engine that is killed leaves its processes behind
		<-ended
	})
}

var apiOn = regexp.MustCompile(`API on port (\d+)`)

// address is where the node serves the network, once it does.
func (g *gate) address() string {
	g.t.Helper()
	var found []string
	g.until("it serves the network", func() bool { found = apiOn.FindStringSubmatch(g.console.String()); return found != nil })
	return net.JoinHostPort("127.0.0.1", found[1])
}

// local is somebody at the node's local socket, with p's home.
func (g *gate) local(p *person) *person {
	local := *p
	local.endpoint = "unix://" + g.socket
	g.until("it is ready", func() bool {
		return local.run("get", "machine", "machine") == exitOK && strings.Contains(local.out.String(), "true")
	})
	return &local
}

// until waits, on a busy machine too.
func (g *gate) until(what string, is func() bool) {
	g.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("still not so: %s", what)
		}
	}
}

// TestResetStateGivesUpWhatWasWritten: not that of another node, and only when the node is named.
func TestResetStateGivesUpWhatWasWritten(t *testing.T) {
	g := startGate(t)
	p := g.local(newPerson(t, ""))
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	p.want(exitUsage, "reset", "state")
	if text := p.want(exitError, "reset", "state", "--confirm", "another"); text != fmt.Sprintf("cosictl: this node is %q, and the request confirms \"another\"\n", name) {
		t.Errorf("another's name: %q", text)
	}
	p.want(exitOK, "get", "mount", "data")
	if text := p.want(exitOK, "reset", "state", "--confirm", name, "--reason", "a test"); text != name+" gives up its state and reboots\n" {
		t.Errorf("its own name: %q", text)
	}
	<-g.ended
	if !strings.Contains(g.console.String(), "the state was reset: a test") {
		t.Error("the console does not say why the node went down")
	}
	g.start()
	p = g.local(p)
	if text := p.want(exitError, "get", "mount", "data"); !strings.Contains(text, "mountpoint/data does not exist") {
		t.Errorf("after the reset: %q", text)
	}
}

// TestRenewBeforeAndAfterExpiry: whatever has expired, one command makes it good again, and a stranger gains nothing by it.
func TestRenewBeforeAndAfterExpiry(t *testing.T) {
	g, p := startGate(t), newPerson(t, "")
	present := p.now
	dir, userData := filepath.Join(p.home, "pki"), filepath.Join(p.home, "user-data.yaml")
	p.now = present.AddDate(-3, 0, 0)
	p.want(exitOK, "gen", "ca", "--dir", dir)
	p.want(exitOK, "gen", "client", "me", "--dir", dir)
	p.want(exitOK, "gen", "user-data", "lab1", "--dir", dir, "-o", userData)
	data, err := os.ReadFile(userData)
	if err != nil {
		t.Fatal(err)
	}
	revoked := strings.Repeat("0123456789abcdef", 4)
	if err := os.WriteFile(userData, append(data, "  revoked: ["+revoked+"]\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	local := g.local(p)
	local.want(exitOK, "apply", "-f", userData)
	p.now = present

	context := []string{"context", "add", "lab1", "--endpoint", g.address(), "--client", "me", "--dir", dir}
	p.want(exitOK, context...)
	refused := func(why string) {
		t.Helper()
		if text := p.want(exitError, "get", "machine"); !strings.Contains(text, why) {
			t.Errorf("said %q; want %q", text, why)
		}
	}
	refused("the node's certificate has expired (cosictl gen renew --apply)")
	// The node's is renewed first: then it is the client's that is in the way.
	if text := p.want(exitError, "gen", "renew", "node-lab1", "--apply", "--dir", dir); !strings.Contains(text, "the node refuses the client certificate: it has expired") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "gen", "renew", "client-me", "--dir", dir)
	refused("the node's certificate has expired")

	// Somebody else with an expired certificate of that name, of that CA: not the node.
	stranger := newPerson(t, "")
	stranger.now = present.AddDate(-3, 0, 0)
	impostor(t, stranger, p, "lab1")
	elsewhere := front(t, stranger, "node-lab1", g.socket)
	if text := p.want(exitError, "--endpoint", elsewhere, "gen", "renew", "node-lab1", "--apply", "--dir", dir); !strings.Contains(text, "node lab1: ") || !strings.Contains(text, "has expired") {
		t.Errorf("a stranger: %q", text)
	}

	if text := p.want(exitOK, "gen", "renew", "node-lab1", "--apply", "--dir", dir); !strings.Contains(text, "lab1 serves with it\n") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "get", "machine")
	before := servedBy(t, g.address())

	// And before it expires: the CA, the client and the node.
	p.want(exitOK, "gen", "renew", "--apply", "--dir", dir)
	p.want(exitOK, "get", "machine")
	if after := servedBy(t, g.address()); after == before {
		t.Error("the node serves with the certificate that it had")
	}
	certificates := p.want(exitOK, "get", "certs", "node", "-o", "yaml")
	ca, err := pki.Store{Dir: dir}.Load(pki.CAName)
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Split(string(ca.CertPEM), "\n")[2]; !strings.Contains(certificates, revoked) || !strings.Contains(certificates, line) {
		t.Errorf("the revocation or the new CA is not there:\n%s", certificates)
	}
	p.want(exitOK, "context", "remove", "lab1")
	if text := p.want(exitError, "gen", "renew", "node-lab1", "--apply", "--dir", dir); !strings.Contains(text, "node lab1: no context names it: 'cosictl context add lab1 ") {
		t.Errorf("said %q", text)
	}
}

// impostor gives s a pair of a node, signed by p's CA, with a key of its own.
func impostor(t *testing.T, s, p *person, node string) {
	t.Helper()
	store := pki.Store{Dir: filepath.Join(p.home, "pki")}
	ca, err := store.Load(pki.CAName)
	if err != nil {
		t.Fatal(err)
	}
	if err := (pki.Store{Dir: filepath.Join(s.home, "pki")}).Save(pki.CAName, ca); err != nil {
		t.Fatal(err)
	}
	s.rand = rand.NewChaCha8([32]byte{2})
	s.want(exitOK, "gen", "node", node, "--dir", filepath.Join(s.home, "pki"))
}

// servedBy is the fingerprint of what serves at an address.
func servedBy(t *testing.T, address string) string {
	t.Helper()
	certificate, err := client.ServingCertificate(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return pki.Fingerprint(certificate)
}
