package gauge

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// proc is a /proc with the given processes: real ones, whose control group is said to be another.
func proc(t *testing.T, groups map[int]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink("/proc/meminfo", filepath.Join(dir, "meminfo")); err != nil {
		t.Fatal(err)
	}
	for pid, group := range groups {
		own := filepath.Join(dir, fmt.Sprint(pid))
		if err := os.Mkdir(own, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(own, "cgroup"), []byte("0::"+group+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"fd", "smaps_rollup", "task"} {
			if err := os.Symlink(fmt.Sprintf("/proc/%d/%s", pid, name), filepath.Join(own, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func start(t *testing.T, g gauge) *plugintest.Runtime {
	t.Helper()
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	p := Plugin()
	p.Controllers[0].Reconcile = g.reconcile
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, p) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
	return r
}

func TestEachVersionOfARequestIsMeasured(t *testing.T) {
	groups := t.TempDir()
	own := filepath.Join(groups, "cosi/plugins/this")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "cpu.stat"), []byte("usage_usec 1234\nuser_usec 1000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, gauge{proc(t, map[int]string{os.Getpid(): "/cosi/plugins/this", os.Getppid(): "/user.slice"}), groups})
	measure := func() *testpb.GaugeRequestStatus {
		version := r.Apply("a", &testpb.GaugeRequest{Seconds: 1}).GetMetadata().GetVersion()
		st := &testpb.GaugeRequestStatus{}
		r.Wait("it is measured", func() bool { return r.Get("a", st) != nil && st.GetObservedVersion() == version })
		return st
	}
	first := measure()
	if len(first.GetProcesses()) != 1 || !first.GetReady() {
		t.Fatalf("status = %v; want this process alone", first)
	}
	p := first.GetProcesses()[0]
	if p.GetName() != "this" || int(p.GetPid()) != os.Getpid() || p.GetPrivateDirty() < 1<<20 || p.GetContextSwitches() == 0 {
		t.Errorf("process = %v; want this one, with its memory and wake-ups", p)
	}
	if p.GetCpuMicroseconds() != 1234 || p.GetDescriptors() < 3 {
		t.Errorf("process = %v; want what its group has used, and its descriptors", p)
	}
	if first.GetWatched() < 1 {
		t.Errorf("watched for %v s; want a second or more", first.GetWatched())
	}
	if total, available := first.GetMemTotal(), first.GetMemAvailable(); total < 64<<20 || available == 0 || available > total {
		t.Errorf("memory: %d of %d available", available, total)
	}
	if second := measure(); second.GetProcesses()[0].GetContextSwitches() <= p.GetContextSwitches() {
		t.Errorf("no wake-up between two measurements: %v, %v", p, second.GetProcesses()[0])
	}
	r.Delete("a", &testpb.GaugeRequest{})
	r.Wait("the status goes with the request", func() bool { return r.Get("a", &testpb.GaugeRequestStatus{}) == nil })
}

func TestSecondsAwakeAreCounted(t *testing.T) {
	asleep := exec.Command("sleep", "60")
	if err := asleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer asleep.Wait()
	defer asleep.Process.Kill()
	g := gauge{proc(t, map[int]string{os.Getpid(): "/cosi/runtime", asleep.Process.Pid: "/cosi/plugins/asleep"}), t.TempDir()}
	all, err := g.watch(t.Context(), 2)
	if err != nil || len(all) != 2 {
		t.Fatalf("watch = %v, %v; want two processes", all, err)
	}
	for _, p := range all {
		if want := map[string]int{"runtime": 2, "asleep": 0}[p.GetName()]; len(p.GetAwake()) != want && (want == 2 || len(p.GetAwake()) > 1) {
			t.Errorf("%s was awake at %v of 2 seconds; want %d times", p.GetName(), p.GetAwake(), want)
		}
	}
}

// What wakes up twice within a second has woken up once, whenever the processes are looked at.
func TestAWakeUpIsCountedOnce(t *testing.T) {
	twice := exec.Command("sh", "-c", "sleep 1.1; sleep 0.2; exec sleep 60")
	if err := twice.Start(); err != nil {
		t.Fatal(err)
	}
	defer twice.Wait()
	defer twice.Process.Kill()
	time.Sleep(200 * time.Millisecond) // it has begun
	g := gauge{proc(t, map[int]string{twice.Process.Pid: "/cosi/plugins/twice"}), t.TempDir()}
	all, err := g.watch(t.Context(), 3)
	if err != nil || len(all) != 1 {
		t.Fatalf("watch = %v, %v; want one process", all, err)
	}
	if p := all[0]; len(p.GetAwake()) != 1 || p.GetWakeups() < 2 {
		t.Errorf("awake at %v of 3 seconds, %d wake-ups; want them counted once", p.GetAwake(), p.GetWakeups())
	}
}

// What wakes up often within a second was awake in one second, and woke up often.
func TestEachWakeUpIsCounted(t *testing.T) {
	restless := exec.Command("sh", "-c", "while sleep 0.05; do :; done")
	if err := restless.Start(); err != nil {
		t.Fatal(err)
	}
	defer restless.Wait()
	defer restless.Process.Kill()
	g := gauge{proc(t, map[int]string{restless.Process.Pid: "/cosi/plugins/restless", os.Getpid(): "/cosi/runtime"}), t.TempDir()}
	look := func(all []*testpb.GaugeRequestStatus_Process, err error) map[uint32]*testpb.GaugeRequestStatus_Process {
		t.Helper()
		if err != nil || len(all) != 2 {
			t.Fatalf("%v, %v; want two processes", all, err)
		}
		return byPID(all)
	}
	before := look(g.processes())
	watched := look(g.watch(t.Context(), 2))
	after := look(g.processes())
	for pid, p := range watched {
		if most := after[pid].GetWakeups() - before[pid].GetWakeups(); p.GetWakeups() > most {
			t.Errorf("%s: %d wake-ups; want those while it was watched, at most %d", p.GetName(), p.GetWakeups(), most)
		}
	}
	if p := watched[uint32(restless.Process.Pid)]; len(p.GetAwake()) > 2 || p.GetWakeups() < 4 {
		t.Errorf("restless: awake at %v of 2 seconds, %d wake-ups; want each of them", p.GetAwake(), p.GetWakeups())
	}
}

// A process may end before a file of it is opened, and after.
func TestAProcessHasEnded(t *testing.T) {
	brief := exec.Command("sleep", "60")
	if err := brief.Start(); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/cgroup", brief.Process.Pid)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	brief.Process.Kill()
	brief.Wait()
	if _, err := io.ReadAll(file); !ended(err) {
		t.Errorf("read: %v; want that it has ended", err)
	}
	if _, err := os.ReadFile(path); !ended(err) {
		t.Errorf("open: %v; want that it has ended", err)
	}
	if ended(fs.ErrPermission) {
		t.Error("what may not be read has not ended")
	}
}

func TestTheNamedProcessIsKilled(t *testing.T) {
	victim := exec.Command("sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	r := start(t, gauge{proc(t, map[int]string{victim.Process.Pid: "/cosi/runtime"}), t.TempDir()})
	r.Apply("a", &testpb.GaugeRequest{Kill: "nobody"})
	st := &testpb.GaugeRequestStatus{}
	r.Wait("there is an answer", func() bool { return r.Get("a", st) != nil })
	if st.GetReady() || !strings.Contains(st.GetMessage(), `"nobody"`) {
		t.Errorf("status = %v; want that there is no such process", st)
	}
	r.Apply("none", &testpb.GaugeRequest{Kill: "runtime", Signal: "SIGNAL"})
	r.Wait("there is an answer", func() bool { return r.Get("none", st) != nil })
	if st.GetReady() || !strings.Contains(st.GetMessage(), `"SIGNAL" is no signal`) {
		t.Errorf("status = %v; want that there is no such signal", st)
	}
	stat := fmt.Sprintf("/proc/%d/stat", victim.Process.Pid)
	r.Apply("stop", &testpb.GaugeRequest{Kill: "runtime", Signal: "SIGSTOP"})
	r.Wait("it has stopped", func() bool { text, _ := os.ReadFile(stat); return strings.Contains(string(text), ") T ") })
	r.Apply("b", &testpb.GaugeRequest{Kill: "runtime"})
	if err := victim.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process ended with %v; want that it was killed", err)
	}
}

func TestKilobytes(t *testing.T) {
	for text, want := range map[string]uint64{"4 kB": 4096, "0 kB": 0} {
		if got, err := (table{"K": text}).kilobytes("K"); got != want || err != nil {
			t.Errorf("kilobytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "4", "4 MB", "-1 kB", "x kB", "99999999999999999999 kB"} {
		if got, err := (table{"K": text}).kilobytes("K"); err == nil {
			t.Errorf("kilobytes(%q) = %d; want an error", text, got)
		}
	}
}

func TestMemoryIsTakenForAMomentOnly(t *testing.T) {
	limit := filepath.Join(t.TempDir(), "memory.max")
	if err := os.WriteFile(limit, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := starve(limit); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(limit); err != nil || string(text) != "max" {
		t.Errorf("the limit is %q, %v; want that it is lifted", text, err)
	}
}

func TestThreadsCompeteAsLongAsTheyShould(t *testing.T) {
	const d = 50 * time.Millisecond
	before, began := runtime.GOMAXPROCS(0), time.Now()
	burn(t.Context(), d)
	if took := time.Since(began); took < d || runtime.GOMAXPROCS(0) != before {
		t.Errorf("burn took %s and left %d processors; want %s and %d", took, runtime.GOMAXPROCS(0), d, before)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	burn(ended, time.Hour)
}
