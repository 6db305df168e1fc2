package gauge

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const envVictim = "COSI_TEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) == "" {
		os.Exit(m.Run())
	}
	for range time.Tick(time.Millisecond) {
		func() {
			defer func() {
				if reason := recover(); reason != nil {
					fmt.Println("recovered:", reason)
					os.Exit(0)
				}
			}()
			fmt.Println(victim())
		}()
	}
}

//go:noinline
func victim() string { return "alive" }

// startVictim returns a process that writes "alive" again and again, and what it writes.
func startVictim(t *testing.T) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envVictim+"=yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // without Wait: one that is traced is not gone before its tracer
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "alive" {
		t.Fatalf("it says %q, %v", lines.Text(), lines.Err())
	}
	return cmd, lines
}

func TestAFunctionOfARunningProgramPanics(t *testing.T) {
	cmd, lines := startVictim(t)
	if err := fault(cmd.Process.Pid, "github.com/cosi-os/cosi/plugins/gauge.victim"); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() && lines.Text() == "alive" {
	}
	if got := lines.Text(); got != "recovered: runtime error: invalid memory address or nil pointer dereference" {
		t.Errorf("it says %q", got)
	}
	if err := fault(os.Getpid(), "no.such"); err == nil || !strings.Contains(err.Error(), "no function no.such") {
		t.Errorf("of a function that is not there: %v", err)
	}
}

func TestAFrozenProcessHasStopped(t *testing.T) {
	cmd, _ := startVictim(t)
	if err := freeze(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil || !strings.Contains(string(text), ") t ") {
			t.Errorf("%s: %s, %v; want the state t, stopped by its tracer", task, text, err)
		}
	}
}
