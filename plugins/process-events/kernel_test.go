package processevents

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
)

func TestProgramsPassTheVerifier(t *testing.T) { doorbelltest.Verify(t, load) }

const envVictim = "COSI_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) != "" {
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test kills it
		return
	}
	os.Exit(m.Run())
}

// crash starts a process, ends it by SIGABRT, which with GOTRACEBACK=crash Go passes on to itself, and returns its number.
func crash(t *testing.T, program string) int {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), envVictim+"=yes", "GOTRACEBACK=crash")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // Go's runtime has its handlers by then
	if err := cmd.Process.Signal(unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) || ended.Sys().(interface{ Signaled() bool }).Signaled() == false {
		t.Fatalf("it ended with %v; want by a signal", err)
	}
	return cmd.Process.Pid
}

// listen opens a source on this machine's kernel and returns the notes it hears.
func listen(t *testing.T, open func() (doorbell.Listener[note], error)) <-chan note {
	t.Helper()
	l, err := open()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ECONNREFUSED) {
		t.Skipf("this kernel does not let it in: %v", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	notes := make(chan note, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- l.Listen(ctx, func(n note) { notes <- n }, func(n uint64) { t.Errorf("%d notes lost", n) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
	})
	return notes
}

// find waits for what happened to a process.
func find(t *testing.T, notes <-chan note, w what, pid int) note {
	t.Helper()
	for deadline := time.After(30 * time.Second); ; {
		select {
		case n := <-notes:
			if n.what == w && n.pid == uint32(pid) {
				return n
			}
		case <-deadline:
			t.Fatalf("process %d: no note that it %s", pid, actions[w])
		}
	}
}

// The kernel of this machine tells of a crash, and of a program that lives in memory only.
func TestACrashAndAnUnexpectedExecAreHeard(t *testing.T) {
	notes := listen(t, sources(doorbell.Often)[0].Open)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("victim", 0)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "victim")
	defer memory.Close()
	if _, err := memory.Write(program); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
	pid := crash(t, path)
	began := find(t, notes, unexpectedExec, pid)
	if began.file != path || began.cgroup == "" || time.Duration(began.at) > doorbell.Now() {
		t.Errorf("note %+v; want that %s was executed", began, path)
	}
	n := find(t, notes, crashed, pid)
	if n.code.signal() != unix.SIGABRT || n.reason == nil || n.comm == "" || n.at < began.at {
		t.Errorf("note %+v; want that it ended by SIGABRT, and why", n)
	}
}

func TestTheConnectorHearsACrash(t *testing.T) {
	notes := listen(t, sources(doorbell.Often)[1].Open)
	pid := crash(t, "/proc/self/exe")
	if n := find(t, notes, crashed, pid); n.code.signal() != unix.SIGABRT || n.comm != "exe" || n.cgroup == "" {
		t.Errorf("note %+v; want that exe ended by SIGABRT", n)
	}
}
