package pressureevents

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// threshold is one that the least work passes.
func threshold(plugin string) *eventspb.PressureThreshold {
	return &eventspb.PressureThreshold{
		Resource: eventspb.PressureThreshold_CPU, Tasks: eventspb.PressureThreshold_SOME, Plugin: plugin,
		Stall: durationpb.New(time.Microsecond), Window: durationpb.New(2 * time.Second),
	}
}

// start runs the plugin until the test ends.
func start(t *testing.T, f files) *plugintest.Runtime {
	t.Helper()
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(f)) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
	return r
}

// pressure skips the test where the kernel does not measure it, or lets this user set no triggers.
func pressure(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile("/proc/pressure/cpu", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skipf("a kernel with triggers, and the right to them, are needed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

// compete has threads wait for the processor for a moment.
func compete() {
	threads := 2 * runtime.NumCPU()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
	var all sync.WaitGroup
	for began := time.Now(); threads > 0; threads-- {
		all.Go(func() {
			for time.Since(began) < 100*time.Millisecond {
			}
		})
	}
	all.Wait()
}

// triggersIn counts the descriptors of this process that a file is open in.
func triggersIn(t *testing.T, file string) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range all {
		if path, _ := os.Readlink(fd); path == file {
			n++
		}
	}
	return n
}

func TestAThresholdOfTheNode(t *testing.T) {
	pressure(t)
	const file = "/proc/pressure/cpu"
	r := start(t, files{node: "/proc/pressure", groups: t.TempDir()})
	spec, status := threshold(""), &eventspb.PressureThresholdStatus{}
	applied := r.Apply("busy", spec)
	r.Wait("it is watched", func() bool { return r.Get("busy", status) != nil && status.GetReady() })
	if status.GetReason() != "Watched" || status.GetMessage() != file || triggersIn(t, file) != 1 || status.GetObservedVersion() < applied.GetMetadata().GetVersion() {
		t.Errorf("status %v, %d triggers", status, triggersIn(t, file))
	}

	event := &eventspb.PressureEvent{}
	compete()
	r.Wait("it is passed", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "Stalled" || event.GetThreshold() != "busy" || event.GetResource() != eventspb.PressureThreshold_CPU || event.GetTotal().AsDuration() <= 0 ||
		event.GetBoottimeNs() == 0 || time.Since(event.GetTime().AsTime()).Abs() > time.Minute || event.GetMessage() != "tasks waited for the processor for 1µs or more within 2s" {
		t.Errorf("event %v", event)
	}
	generator := &eventspb.GeneratorStatus{}
	r.Wait("the ring is counted", func() bool {
		return r.Get(name, generator) != nil && generator.GetMode() == "psi" && generator.GetRings() > 0
	})

	spec.Resource = eventspb.PressureThreshold_MEMORY
	r.Apply("busy", spec)
	r.Wait("another file is watched", func() bool { return r.Get("busy", status) != nil && status.GetMessage() == "/proc/pressure/memory" })
	if n := triggersIn(t, file); n != 0 {
		t.Errorf("%d triggers are left in %s", n, file)
	}
	r.Delete("busy", spec)
	if n := triggersIn(t, "/proc/pressure/memory"); n != 0 || r.Get("busy", status) != nil {
		t.Errorf("%d triggers, status %v; want that none outlives the finalizer", n, status)
	}
}

func TestWhatTheKernelRefusesIsSaid(t *testing.T) {
	pressure(t)
	r := start(t, files{node: "/proc/pressure", groups: t.TempDir()})
	spec, status := threshold(""), &eventspb.PressureThresholdStatus{}
	spec.Window = durationpb.New(time.Minute)
	r.Apply("long", spec)
	const want = `write "some 1 60000000" to /proc/pressure/cpu: invalid argument`
	r.Wait("it is refused", func() bool { return r.Get("long", status) != nil && status.GetMessage() == want })
	if status.GetReady() || status.GetReason() != "Refused" {
		t.Errorf("status %v", status)
	}
}

func TestAKernelThatDoesNotMeasure(t *testing.T) {
	dir := t.TempDir()
	r := start(t, files{node: dir, groups: dir})
	status, generator := &eventspb.PressureThresholdStatus{}, &eventspb.GeneratorStatus{}
	r.Apply("busy", threshold(""))
	r.Wait("it is refused", func() bool {
		return r.Get("busy", status) != nil && status.GetReason() == "Refused" && status.GetMessage() == "open "+dir+"/cpu: no such file or directory"
	})
	r.Wait("the generator hears nothing", func() bool { return r.Get(name, generator) != nil && generator.GetMode() == "none" })
}

// A plugin that starts has a control group of its own each time.
func TestAThresholdOfAPlugin(t *testing.T) {
	pressure(t)
	mount := t.TempDir()
	if err := unix.Mount("none", mount, "cgroup2", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, 0) })
	groups := filepath.Join(mount, fmt.Sprintf("cosi-pressure-%d", os.Getpid()))
	group := filepath.Join(groups, "plugins", "x")
	t.Cleanup(func() {
		for _, dir := range []string{group, filepath.Dir(group), groups} {
			os.Remove(dir)
		}
	})
	r := start(t, files{node: "/proc/pressure", groups: groups})
	status, file := &eventspb.PressureThresholdStatus{}, filepath.Join(group, "cpu.pressure")
	r.Apply("of-x", threshold("x"))
	r.Wait("there is no such plugin", func() bool {
		return r.Get("of-x", status) != nil && status.GetReason() == "NoPlugin" && !status.GetReady()
	})
	for run := range 2 {
		if err := os.MkdirAll(group, 0o755); err != nil {
			t.Fatal(err)
		}
		r.Apply("x", &servicepb.PluginStatus{Pid: uint32(run)})
		r.Wait("it is watched", func() bool { return r.Get("of-x", status) != nil && status.GetReady() && status.GetMessage() == file })
		if err := os.Remove(group); err != nil {
			t.Fatal(err)
		}
		r.Wait("it is gone", func() bool { return r.Get("of-x", status) != nil && status.GetReason() == "NoPlugin" })
	}
	if event := (&eventspb.PressureEvent{}); r.Get(doorbell.ID(1), event) != nil {
		t.Errorf("that a group has gone is %v", event)
	}
}

func TestParseTotal(t *testing.T) {
	const text = "some avg10=4.10 avg60=10.52 avg300=25.78 total=10977434758\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
	for tasks, want := range map[string]time.Duration{"some": 10977434758 * time.Microsecond, "full": 7 * time.Microsecond} {
		if got, err := parseTotal(text, tasks); err != nil || got != want {
			t.Errorf("parseTotal(%s) = %v, %v; want %v", tasks, got, err, want)
		}
	}
	for _, broken := range []string{"", "\n", "some", "full total=1\n", "some total=x\n", "some avg10=0.00\n"} {
		if got, err := parseTotal(broken, "some"); err == nil {
			t.Errorf("parseTotal(%q) = %v; want an error", broken, got)
		}
	}
}
