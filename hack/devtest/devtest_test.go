// Package devtest runs "engine --root" as "make dev" does, beside this machine's init, and drives it through cosictl.
package devtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// patience is how long a step may take on a busy machine.
const patience = 90 * time.Second

// node is a node of hack/dev.
type node struct {
	t       *testing.T
	cosictl string
	socket  string
	process *exec.Cmd
	output  *bytes.Buffer
}

func start(t *testing.T) *node {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	// Sockets have short names: t.TempDir is too long.
	root, err := os.MkdirTemp("", "cosidev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil { // the plugins have users of their own
		t.Fatal(err)
	}
	build := exec.Command("make", "--no-print-directory", "build")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	n := &node{
		t: t, cosictl: filepath.Join(repository, "build/bin/cosictl"), socket: filepath.Join(root, "run/cosi/runtime.sock"),
		process: exec.Command(filepath.Join(repository, "hack/dev"), root), output: &bytes.Buffer{},
	}
	n.process.Stdout, n.process.Stderr = n.output, n.output
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-n.process.Process.Pid, syscall.SIGKILL) // whatever a failed test has left
		if t.Failed() {
			t.Logf("the engine's output:\n%s", n.output)
		}
	})
	return n
}

// run runs cosictl and returns what it printed and its exit code.
func (n *node) run(input string, args ...string) (string, int) {
	n.t.Helper()
	cmd := exec.Command(n.cosictl, append([]string{"--endpoint", "unix://" + n.socket}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (n *node) until(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("still not so after %v: %s", patience, what)
		}
	}
}

// plugin is what the test looks at of a PluginStatus.
type plugin struct {
	State    string `yaml:"state"`
	PID      int    `yaml:"pid"`
	Restarts int    `yaml:"restarts"`
}

func (n *node) plugin(name string) plugin {
	var r struct {
		Spec plugin `yaml:"spec"`
	}
	if out, code := n.run("", "get", "plugin", name, "-o", "yaml"); code == 0 {
		if err := yaml.Unmarshal([]byte(out), &r); err != nil {
			n.t.Fatal(err)
		}
	}
	return r.Spec
}

func (n *node) ready() {
	n.t.Helper()
	for _, name := range []string{"mount", "network", "power", "userdata"} {
		n.until(name+" is ready", func() bool { return n.plugin(name).State == "Ready" })
	}
}

const tmpfs = `metadata: {type: mount, id: dev}
spec: {source: tmpfs, target: /var/tmp/cosi-devtest, fstype: tmpfs}
`

func TestEngineBesideAnotherInit(t *testing.T) {
	n := start(t)
	t.Cleanup(func() { os.Remove("/var/tmp/cosi-devtest") })
	n.ready()
	n.until("the image's default resources are applied", func() bool {
		out, _ := n.run("", "get", "userdata", "image", "-o", "yaml")
		return strings.Contains(out, "state: Applied")
	})
	t.Run("Mount", n.mounts)
	t.Run("KilledPlugin", n.pluginDies)
	t.Run("KilledRuntime", n.runtimeDies)
	t.Run("End", n.ends)
}

func (n *node) mounts(t *testing.T) {
	n.t = t
	out, code := n.run(tmpfs, "apply", "-f", "-", "--wait", "--timeout", "30s")
	if os.Geteuid() != 0 {
		if code != 3 || !strings.Contains(out, "MountFailed") {
			t.Fatalf("apply without rights: exit %d, %s; want 3 and the reason", code, out)
		}
		return
	}
	if code != 0 || !strings.Contains(out, "mountpoint/dev ready") {
		t.Fatalf("apply: exit %d, %s", code, out)
	}
	mine, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mine, []byte("cosi-devtest")) {
		t.Errorf("the mount is seen outside of the node's namespace (%v)", err)
	}
}

func (n *node) pluginDies(t *testing.T) {
	n.t = t
	before := n.plugin("mount")
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.until("mount has been started again", func() bool {
		now := n.plugin("mount")
		return now.State == "Ready" && now.Restarts == before.Restarts+1 && now.PID != before.PID
	})
	if out, code := n.run("", "get", "mountstatus", "dev"); code != 0 {
		t.Errorf("the plugin's resource is gone with it: %s", out)
	}
}

func (n *node) runtimeDies(t *testing.T) {
	n.t = t
	old := runtimes(t, n.socket)
	if len(old) != 1 {
		t.Fatalf("runtimes of this node: %v; want one", old)
	}
	if err := syscall.Kill(old[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.until("another runtime runs", func() bool { now := runtimes(t, n.socket); return len(now) == 1 && now[0] != old[0] })
	n.ready()
	n.until("user data was applied again: the store is a new one", func() bool {
		out, _ := n.run("", "get", "dhcp", "default")
		return strings.Contains(out, "default")
	})
}

// runtimes are the processes that run the runtime of the node with that socket.
func runtimes(t *testing.T, socket string) []int {
	t.Helper()
	program := filepath.Join(filepath.Dir(socket), "../../usr/bin/runtime")
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == filepath.Clean(program) {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func (n *node) ends(t *testing.T) {
	n.t = t
	pid := n.plugin("mount").PID
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.process.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("engine: %v; want exit 0", err)
		}
	case <-time.After(patience):
		t.Fatal("the engine has not ended")
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("the mount plugin has survived its engine: %v", err)
	}
}
