package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		args []string
		name string
		rest []string
	}{
		{[]string{"/usr/lib/cosi/bin/plugins", "mount", "--version"}, "mount", []string{"mount", "--version"}},
		{[]string{"/usr/lib/cosi/bin/mount", "--version"}, "mount", []string{"/usr/lib/cosi/bin/mount", "--version"}},
		{[]string{"plugins", "nothing"}, "nothing", []string{"nothing"}},
		{[]string{"plugins"}, "", nil},
	} {
		name, rest := choose(plugins(), test.args)
		if name != test.name || !slices.Equal(rest, test.rest) {
			t.Errorf("choose(%q) = %q, %q; want %q, %q", test.args, name, rest, test.name, test.rest)
		}
	}
}

func TestEveryPluginDeclaresItsName(t *testing.T) {
	for name, plugin := range plugins() {
		d, err := declaration.Parse(plugin().Declaration)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if d.Name != name || d.Description == "" {
			t.Errorf("%s declares the name %q and the description %q", name, d.Name, d.Description)
		}
	}
}

// TestProgramsRun builds the multi-call program and each plugin alone, and runs all of them: flags, and a session with a runtime.
func TestProgramsRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds every program")
	}
	all := build(t, ".", "plugins")
	var sizes []string
	for name, plugin := range plugins() {
		alone := build(t, "./"+name+"/main", name)
		sizes = append(sizes, size(t, alone))
		for _, command := range [][]string{{alone}, {all, name}} {
			t.Run(strings.Join(append(command[1:], name), "/"), func(t *testing.T) {
				p := plugin()
				if got, want := output(t, append(command, "--version")), name+" "+p.Version+"\n"; got != want {
					t.Errorf("--version = %q, want %q", got, want)
				}
				if got := output(t, append(command, "--declaration")); got != string(p.Declaration) {
					t.Errorf("--declaration = %q, want plugin.json", got)
				}
				if got := output(t, append(command, "--help")); !strings.HasPrefix(got, name+" is a COSI plugin: ") {
					t.Errorf("--help = %q", got)
				}
			})
		}
	}
	slices.Sort(sizes)
	t.Logf("multi-call %s; alone %s", size(t, all), strings.Join(sizes, ", "))
	// One with, one without a name of its own; power touches nothing of the machine while nobody asks it to.
	session(t, build(t, "./power/main", "alone"))
	session(t, all, "power")
}

func build(t *testing.T, folder, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", path, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

func size(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path) + " " + fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}

func output(t *testing.T, command []string) string {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v", command, err)
	}
	return string(out)
}

// session starts a plugin as the engine does, waits until it is ready, and interrupts it.
func session(t *testing.T, command ...string) {
	t.Helper()
	r := plugintest.Start(t, plugins()["power"]().Declaration)
	cmd := exec.Command(command[0], command[1:]...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = append(os.Environ(), sdk.EnvEndpoint+"="+r.Endpoint), &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	r.WaitReady()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("%q: /proc/PID/status has no %q", command, want)
		}
	}
	if own, ok := ownMemory(cmd.Process.Pid); ok {
		t.Logf("%q: %s of memory of its own", command, own)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%q after SIGINT: %v: %s", command, err, &stderr)
	}
}

// ownMemory is the memory of a process that no file backs: pages of a program that was just linked are dirty, but not its own.
func ownMemory(pid int) (kB string, ok bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		return "", false
	}
	_, after, ok := strings.Cut(string(data), "Anonymous:")
	line, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(line), ok
}
