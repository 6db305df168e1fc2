package vmtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
)

// outside are the programs that people reach a node with: cosictl, and grpcurl with the protoset of make build.
type outside struct {
	dir            string
	ctl, curl      string
	protoset       string
	config         string
	address, node  string
	ca, cert, key  string
	patienceFactor time.Duration
}

// buildOutside builds the programs from this source.
func buildOutside(t *testing.T) *outside {
	t.Helper()
	dir := t.TempDir()
	o := &outside{dir: dir, ctl: filepath.Join(dir, "cosictl"), protoset: filepath.Join(dir, "cosi.protoset")}
	gotool(t, "build", "-o", o.ctl, "./tools/cosictl")
	gotool(t, "run", "./hack/generate", "-protoset", o.protoset)
	o.curl = strings.TrimSpace(gotool(t, "tool", "-n", "grpcurl"))
	return o
}

// gotool runs the go command at the module's root and returns what it prints.
func gotool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// connect tells the programs of n, with the admin's certificate.
func (o *outside) connect(t *testing.T, n *vmtest.Node) {
	t.Helper()
	o.config, o.address, o.node = filepath.Join(o.dir, "config.yaml"), n.Context.Endpoint, n.Identity.Name
	o.ca, o.cert, o.key = filepath.Join(o.dir, "ca.pem"), filepath.Join(o.dir, "cert.pem"), filepath.Join(o.dir, "key.pem")
	o.patienceFactor = vmtest.Host(t).Slower()
	config := &client.Config{Current: "node", Contexts: map[string]*client.Context{"node": &n.Context}}
	if err := config.Save(o.config); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{o.ca: n.Context.CA, o.cert: n.Context.Certificate, o.key: n.Context.Key} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// cosictl runs a command that ends by itself and must succeed, and returns its standard output.
func (o *outside) cosictl(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience*o.patienceFactor)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.ctl, append([]string{"--config", o.config}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("cosictl %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// grpcurl calls a method of State and returns all that grpcurl prints.
func (o *outside) grpcurl(t *testing.T, method, request string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience*o.patienceFactor)
	defer cancel()
	out, err := exec.CommandContext(ctx, o.curl, "-cacert", o.ca, "-cert", o.cert, "-key", o.key, "-authority", o.node,
		"-protoset", o.protoset, "-d", request, o.address, "cosi.resource.State/"+method).CombinedOutput()
	return string(out), err
}

// call is grpcurl for a call that must succeed; its answer is decoded into answer, unless that is nil.
func (o *outside) call(t *testing.T, method, request string, answer any) {
	t.Helper()
	out, err := o.grpcurl(t, method, request)
	if err == nil && answer != nil {
		err = json.Unmarshal([]byte(out), answer)
	}
	if err != nil {
		t.Fatalf("grpcurl %s %s: %v\n%s", method, request, err, out)
	}
}

// follower is a cosictl that goes on until it is interrupted.
type follower struct {
	cmd     *exec.Cmd
	out     *qemu.Console // keeps what is printed, and waits for a pattern
	patient time.Duration
}

// follow starts one. It ends with the test.
func (o *outside) follow(t *testing.T, args ...string) *follower {
	t.Helper()
	f := &follower{out: qemu.NewConsole(nil), patient: patience * o.patienceFactor}
	f.cmd = exec.CommandContext(t.Context(), o.ctl, append([]string{"--config", o.config}, args...)...)
	f.cmd.Stdout, f.cmd.Stderr = f.out, f.out
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return f
}

// expect waits until it has printed what matches pattern.
func (f *follower) expect(t *testing.T, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), f.patient)
	defer cancel()
	if _, err := f.out.Wait(ctx, 0, regexp.MustCompile(pattern)); err != nil {
		t.Errorf("%s: %v; it printed:\n%s", f.cmd, err, f.out.Tail(20))
	}
}

// interrupt presses Ctrl-C, which is the ordinary end.
func (f *follower) interrupt(t *testing.T) {
	t.Helper()
	if err := f.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("%s after an interrupt: %v; it printed:\n%s", f.cmd, err, f.out.Tail(20))
	}
}
