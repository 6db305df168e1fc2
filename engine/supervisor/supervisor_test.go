package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/output"
	"github.com/cosi-os/cosi/engine/wire"
)

// TestMain is also every process of the tests: "process KIND".
func TestMain(m *testing.M) {
	if len(os.Args) >= 3 && os.Args[1] == "process" {
		act(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func act(kind string) {
	switch kind {
	case "sleep":
		fmt.Println("hello")
		fmt.Fprintln(os.Stderr, "trouble")
		time.Sleep(time.Hour)
	case "exit3":
		fmt.Print("no newline")
		os.Exit(3)
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		fmt.Println("deaf")
		time.Sleep(time.Hour)
	case "orphan":
		// The child outlives this process and keeps its pipes.
		p, err := os.StartProcess("/proc/self/exe", []string{"x", "process", "stubborn"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
		fmt.Println("child", p.Pid, err)
		time.Sleep(300 * time.Millisecond)
	case "files":
		data, err := io.ReadAll(os.NewFile(3, "three"))
		fmt.Println(string(data), err, os.Getenv("FROM"))
		time.Sleep(time.Hour)
	case "refused":
		os.NewFile(3, "status").WriteString("error no such plugin\n")
		os.Exit(1)
	case "launched":
		os.NewFile(3, "status").WriteString("landlock 6\n")
		unix.CloseOnExec(3)
		syscall.Exec("/proc/self/exe", []string{"x", "process", "sleep"}, nil)
	case "launched-restricted":
		os.NewFile(3, "status").WriteString("landlock 6\n")
		unix.CloseOnExec(3)
		syscall.Exec("/proc/self/exe", []string{"x", "process", "restricted", os.Args[3]}, nil)
	case "restricted":
		late, _ := time.ParseDuration(os.Args[3])
		time.Sleep(late)
		runtime.LockOSThread() // the thread that executes is the process then
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		syscall.Exec("/proc/self/exe", []string{"x", "process", "sleep"}, nil)
	}
}

// bench is a running supervisor and what it reported.
type bench struct {
	*Supervisor
	t      *testing.T
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	reports []wire.Up
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, ended: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(t.Context())
	b.Supervisor = &Supervisor{
		Log:     output.NewLog(),
		Backoff: Backoff{Min: 20 * time.Millisecond, Max: 80 * time.Millisecond, Healthy: time.Minute},
		Grace:   200 * time.Millisecond,
		Report: func(up wire.Up) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.reports = append(b.reports, up)
		},
	}
	go func() {
		defer close(b.ended)
		b.Run(b.ctx)
	}()
	t.Cleanup(func() {
		b.cancel()
		<-b.ended
	})
	return b
}

func (b *bench) add(kind string) Spec {
	spec := Spec{Name: kind, Argv: []string{"/proc/self/exe", "process", kind}}
	b.addSpec(spec)
	return spec
}

func (b *bench) addSpec(spec Spec) {
	if err := b.Add(b.ctx, spec); err != nil {
		b.t.Fatal(err)
	}
}

// wait returns the first report that fits.
func (b *bench) wait(what string, fits func(wire.Up) bool) wire.Up {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		b.mu.Lock()
		for _, up := range b.reports {
			if fits(up) {
				b.mu.Unlock()
				return up
			}
		}
		b.mu.Unlock()
	}
	b.t.Fatalf("no report of %s", what)
	return wire.Up{}
}

// line waits until some process has printed text.
func (b *bench) line(text string) string {
	b.t.Helper()
	cursors := map[string]uint64{}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for some := b.Log.Next(cursors); len(some) > 0; some = b.Log.Next(cursors) {
			for _, o := range some {
				if o.Name != "engine" && strings.Contains(o.Line, text) {
					return o.Stream + " " + o.Line
				}
			}
		}
	}
	b.t.Fatalf("nobody printed %q", text)
	return ""
}

func exited(up wire.Up) bool { return up.Exited != nil }

func gone(pid int) bool { return unix.Kill(pid, 0) == unix.ESRCH }

func TestOutputIsReadFromBothStreams(t *testing.T) {
	b := newBench(t)
	b.add("sleep")
	if got := b.line("hello"); got != "stdout hello" {
		t.Errorf("got %q", got)
	}
	if got := b.line("trouble"); got != "stderr trouble" {
		t.Errorf("got %q", got)
	}
}

func TestWhatEndsIsStartedAgain(t *testing.T) {
	b := newBench(t)
	b.add("exit3")
	up := b.wait("an end", exited)
	if up.Exited.How != "exit 3" || up.Exited.NextStart.IsZero() {
		t.Errorf("exited: %+v", up.Exited)
	}
	b.wait("the third start", func(up wire.Up) bool { return up.Started != nil && up.Started.Restarts == 2 })
	b.line("no newline")
}

func TestTheFirstStartWaitsForItsTurn(t *testing.T) {
	b := newBench(t)
	after := make(chan struct{})
	for _, name := range []string{"sleep", "asked", "stopped"} {
		b.addSpec(Spec{Name: name, Argv: []string{"/proc/self/exe", "process", "sleep"}, After: after})
	}
	b.add("exit3")
	started := func(name string) func(wire.Up) bool {
		return func(up wire.Up) bool { return up.Started != nil && up.Started.Name == name }
	}
	if err := errors.Join(b.Stop(b.ctx, "stopped"), b.Start(b.ctx, "asked")); err != nil {
		t.Fatal(err)
	}
	b.wait("the start that was asked for", started("asked"))
	b.wait("a process that waits for nothing", started("exit3"))
	b.mu.Lock()
	if slices.ContainsFunc(b.reports, started("sleep")) {
		t.Error("it started before its turn")
	}
	b.mu.Unlock()
	close(after)
	b.wait("the start in its turn", started("sleep"))
	if err := b.Start(b.ctx, "stopped"); err != nil { // it was not started by its turn: it starts for the first time now
		t.Fatal(err)
	}
	if first := b.wait("the start of what was stopped", started("stopped")).Started; first.Restarts != 0 {
		t.Errorf("started with %d restarts; want the first start", first.Restarts)
	}
}

func TestStopKeepsItStoppedUntilStart(t *testing.T) {
	b := newBench(t)
	b.add("sleep")
	b.line("hello")
	first := b.wait("a start", func(up wire.Up) bool { return up.Started != nil }).Started.PID
	if err := b.Stop(b.ctx, "sleep"); err != nil {
		t.Fatal(err)
	}
	end := b.wait("the end", exited).Exited
	if end.How != "signal terminated" || !end.NextStart.IsZero() || !gone(first) {
		t.Errorf("after Stop: %+v, gone %v", end, gone(first))
	}
	if err := b.Start(b.ctx, "sleep"); err != nil {
		t.Fatal(err)
	}
	b.wait("another start", func(up wire.Up) bool { return up.Started != nil && up.Started.PID != first })
	if err := b.Stop(b.ctx, "nobody"); err == nil {
		t.Error("Stop of an unknown process succeeded")
	}
}

func TestStopDuringTheBackoff(t *testing.T) {
	b := newBench(t)
	b.Backoff = Backoff{Min: time.Hour, Max: time.Hour}
	b.add("exit3")
	b.wait("the end", exited)
	if err := b.Stop(b.ctx, "exit3"); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(b.ctx, "exit3"); err != nil {
		t.Fatal(err)
	}
	b.wait("the second start", func(up wire.Up) bool { return up.Started != nil && up.Started.Restarts == 1 })
}

func TestTheDeafAreKilledAfterTheGrace(t *testing.T) {
	b := newBench(t)
	b.add("stubborn")
	b.line("deaf")
	if err := b.Stop(b.ctx, "stubborn"); err != nil {
		t.Fatal(err)
	}
	if got := b.wait("the end", exited).Exited.How; got != "signal killed" {
		t.Errorf("How = %q; want signal killed", got)
	}
}

func TestWhatAProcessLeavesBehindIsKilledAndReaped(t *testing.T) {
	unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	b := newBench(t)
	b.Backoff.Min = time.Hour
	b.add("orphan")
	var pid int
	fmt.Sscanf(b.line("child "), "stdout child %d", &pid)
	b.wait("the end", exited)
	for deadline := time.Now().Add(5 * time.Second); !gone(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func TestWhatCannotBeStartedSaysWhy(t *testing.T) {
	b := newBench(t)
	b.addSpec(Spec{Name: "absent", Argv: []string{"/no/such/program"}})
	end := b.wait("the end", exited).Exited
	if !strings.Contains(end.How, "/no/such/program: no such file") || end.NextStart.IsZero() {
		t.Errorf("exited: %+v", end)
	}
	if err := b.Add(b.ctx, Spec{Name: "absent"}); err == nil {
		t.Error("a name was added twice")
	}
}

func TestPrepareHandsFilesAndVariablesOver(t *testing.T) {
	b := newBench(t)
	released := make(chan struct{})
	b.addSpec(Spec{Name: "files", Argv: []string{"/proc/self/exe", "process", "files"},
		Prepare: func() ([]*os.File, []string, func(), error) {
			r, w, err := os.Pipe()
			if err != nil {
				return nil, nil, nil, err
			}
			w.WriteString("through")
			w.Close()
			return []*os.File{r}, []string{"FROM=prepare"}, func() { r.Close(); close(released) }, nil
		}})
	b.line("through <nil> prepare")
	<-released
}

func TestTheLaunchersRefusalIsTheReason(t *testing.T) {
	b := newBench(t)
	b.addSpec(Spec{Name: "refused", Launched: true, Argv: []string{"/proc/self/exe", "process", "refused"}})
	if got := b.wait("the end", exited).Exited.How; got != "launch: no such plugin" {
		t.Errorf("How = %q", got)
	}
}

func TestConfinementIsReadAfterTheProgramWasExecuted(t *testing.T) {
	b := newBench(t)
	b.addSpec(Spec{Name: "launched", Launched: true, Argv: []string{"/proc/self/exe", "process", "launched"}})
	c := b.wait("confinement", func(up wire.Up) bool { return up.Confined != nil }).Confined
	if !c.Landlock || c.UID != uint32(os.Getuid()) || c.PID == 0 || c.Name != "launched" {
		t.Errorf("confined: %+v", c)
	}
	b.line("hello")
}

func TestWhatAProgramForbidsItselfIsReportedToo(t *testing.T) {
	for name, test := range map[string]struct {
		again time.Duration
		after string
	}{"soon": {500 * time.Millisecond, "100ms"}, "on a slow machine": {300 * time.Millisecond, "1.5s"}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Again = test.again
			b.addSpec(Spec{Name: "restricted", Launched: true, Argv: []string{"/proc/self/exe", "process", "launched-restricted", test.after}})
			b.wait("confinement", func(up wire.Up) bool { return up.Confined != nil })
			c := b.wait("more of it", func(up wire.Up) bool { return up.Confined != nil && up.Confined.NoNewPrivs }).Confined
			if !c.Landlock || c.Name != "restricted" {
				t.Errorf("confined: %+v", c)
			}
		})
	}
}

func TestRunEndsWhenAllAreGone(t *testing.T) {
	b := newBench(t)
	b.add("sleep")
	b.add("stubborn")
	b.line("hello")
	b.line("deaf")
	b.cancel()
	select {
	case <-b.ended:
	case <-time.After(5 * time.Second):
		t.Fatal("Run did not end")
	}
	if exits := len(b.reports); exits < 4 {
		t.Errorf("%d reports; want two starts and two ends", exits)
	}
}

// controlGroup returns the name of a control group of the kernel's, where this machine lets the test mount them. It is removed in the end.
func controlGroup(t *testing.T, name string) string {
	t.Helper()
	mount := t.TempDir()
	if err := unix.Mount("none", mount, "cgroup2", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(mount, 0) })
	group := filepath.Join(mount, name)
	t.Cleanup(func() { os.Remove(group) })
	return group
}

// TestAControlGroupServesManyRuns: Linux 6.12 kills whatever is cloned into a group that was killed before.
func TestAControlGroupServesManyRuns(t *testing.T) {
	group := controlGroup(t, "cosi-supervisor-test")
	b := newBench(t)
	b.addSpec(Spec{Name: "orphan", Argv: []string{"/proc/self/exe", "process", "orphan"}, Cgroup: group})
	b.wait("the third start", func(up wire.Up) bool { return up.Started != nil && up.Started.Restarts == 2 })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, up := range b.reports {
		if up.Exited != nil && up.Exited.How != "exit 0" {
			t.Errorf("ended: %s; want exit 0", up.Exited.How)
		}
	}
}

func TestEverybodyMayWaitForThePressureOfAGroup(t *testing.T) {
	if _, err := os.Stat("/proc/pressure"); err != nil {
		t.Skipf("this kernel does not measure pressure: %v", err)
	}
	group := controlGroup(t, "cosi-pressure-test")
	for range 2 { // and when it was made anew
		if err := freshGroup(group); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpu.pressure", "io.pressure", "memory.pressure"} {
			info, err := os.Stat(filepath.Join(group, file))
			if err != nil || info.Mode().Perm() != 0o666 {
				t.Errorf("%s: %v, %v; want that everybody may write it", file, info, err)
			}
		}
	}
}

func TestOnceIsRunToItsEnd(t *testing.T) {
	b := newBench(t)
	if end := b.Once(b.ctx, Spec{Name: "once", Argv: []string{"/proc/self/exe", "process", "exit3"}}); end != "exit 3" {
		t.Errorf("it ended with %q", end)
	}
	ctx, cancel := context.WithTimeout(b.ctx, 100*time.Millisecond)
	defer cancel()
	if end := b.Once(ctx, Spec{Name: "hangs", Argv: []string{"/proc/self/exe", "process", "sleep"}}); end != "signal terminated" {
		t.Errorf("what hangs ended with %q", end)
	}
	if end := b.Once(b.ctx, Spec{Name: "none", Argv: []string{"/nothing"}}); !strings.Contains(end, "no such file") {
		t.Errorf("what is not there ended with %q", end)
	}
}
