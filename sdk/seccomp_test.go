package sdk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const envFilter = "COSI_TEST_FILTER"

func TestMain(m *testing.M) {
	switch os.Getenv(envFilter) {
	case "":
		os.Exit(m.Run())
	case "executed":
		fmt.Println("executed")
	default:
		fmt.Println(filtered())
	}
}

// filtered says what execve and execveat do after denyExec, in a thread that was there before.
func filtered() error {
	before, result := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		<-before
		os.Setenv(envFilter, "executed")
		err := unix.Exec("/proc/self/exe", []string{"test"}, os.Environ())
		path, _ := unix.BytePtrFromString("/proc/self/exe")
		_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(^uint(99)), uintptr(unsafe.Pointer(path)), 0, 0, 0, 0)
		result <- fmt.Errorf("execve %w, execveat %w", err, errno)
	}()
	if err := denyExec(); err != nil {
		return err
	}
	close(before)
	return <-result
}

func TestDenyExecHoldsInAllThreads(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envFilter+"=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := fmt.Sprintf("execve %v, execveat %v", unix.EPERM, unix.EPERM)
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("after denyExec: %s; want %s", got, want)
	}
}

// TestExecFilter runs the program over all that matters to it, as the kernel would.
func TestExecFilter(t *testing.T) {
	const foreign = 0x40000003 // AUDIT_ARCH_I386
	for _, test := range []struct {
		arch, number uint32
		allowed      bool
	}{
		{auditArch, unix.SYS_EXECVE, false},
		{auditArch, unix.SYS_EXECVEAT, false},
		{auditArch, unix.SYS_READ, true},
		{auditArch, unix.SYS_OPENAT, true},
		{auditArch, firstX32 | 520, false},
		{foreign, 11, false},
		{foreign, unix.SYS_READ, false},
	} {
		got, err := simulate(execFilter(), test.arch, test.number)
		if err != nil || (got == unix.SECCOMP_RET_ALLOW) != test.allowed {
			t.Errorf("arch %#x call %d = %#x, %v; want allowed %v", test.arch, test.number, got, err, test.allowed)
		}
	}
}

// simulate is classic BPF as far as the filter uses it.
func simulate(program []unix.SockFilter, arch, number uint32) (uint32, error) {
	var a uint32
	for i := 0; i < len(program); i++ {
		in, jump := program[i], false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = map[uint32]uint32{offsetNumber: number, offsetArch: arch}[in.K]
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump = a == in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump = a >= in.K
		default:
			return 0, fmt.Errorf("instruction %d: code %#x", i, in.Code)
		}
		if jump {
			i += int(in.Jt)
		} else {
			i += int(in.Jf)
		}
	}
	return 0, errors.New("ran off the end")
}
