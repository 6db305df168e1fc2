package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// VM is a machine that was started.
//
//	Start ──► running ──► ended (Done is closed)
//	            │ PowerDown: ACPI button, then Kill when its context ends
//	            └ Kill
type VM struct {
	Console *Console
	Monitor *QMP
	Started time.Time

	process *os.Process
	done    chan struct{}
	err     error // valid once done is closed
}

// Start runs m. What the guest writes to its serial port is kept in VM.Console and copied to
// console, unless that is nil. The VM ends by itself, by PowerDown or Kill, or with the program.
func Start(ctx context.Context, h *Host, m Machine, console io.Writer) (*VM, error) {
	argv, err := m.Args(h)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	vm := &VM{Console: NewConsole(console), done: make(chan struct{})}
	var stderr bytes.Buffer
	cmd := exec.Command(h.Program, argv...)
	cmd.Stdout, cmd.Stderr = vm.Console, &stderr
	cmd.ExtraFiles = []*os.File{theirs}
	// A group of its own: Ctrl-C is for us, QEMU would end at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go vm.run(cmd, &stderr, started)
	err = <-started
	theirs.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	if vm.Monitor, err = NewQMP(ctx, ours); err != nil {
		vm.Kill()
		return nil, errors.Join(vm.err, err)
	}
	return vm, nil
}

// run starts QEMU and waits for it. PR_SET_PDEATHSIG watches the thread that started the process and
// not the program: the thread is kept until the process has ended.
func (vm *VM) run(cmd *exec.Cmd, stderr *bytes.Buffer, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	vm.Started = time.Now()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	vm.process = cmd.Process
	started <- nil
	err := cmd.Wait()
	if err != nil {
		vm.err = fmt.Errorf("%s: %w%s", cmd.Path, err, complaints(stderr.String()))
	}
	vm.Console.end(vm.err)
	close(vm.done)
}

// complaints returns what QEMU wrote to its standard error, without what always stands there under
// TCG.
func complaints(stderr string) string {
	var b strings.Builder
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "TCG doesn't support requested feature") {
			b.WriteString("\n" + strings.TrimRight(line, "\n"))
		}
	}
	return b.String()
}

// Done is closed when the VM has ended.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Wait waits until the VM has ended, and returns what QEMU had to complain about.
func (vm *VM) Wait() error {
	<-vm.done
	vm.Monitor.Close()
	return vm.err
}

// PowerDown presses the power button and waits until the guest has powered off. It presses again
// every few seconds: a guest that has not loaded the button's driver yet does not see it. If ctx ends
// before, the VM is killed and ctx's error returned.
func (vm *VM) PowerDown(ctx context.Context) error {
	for {
		if err := vm.Monitor.Execute(ctx, "system_powerdown", nil, nil); err != nil && !errors.Is(err, ErrClosed) {
			vm.Kill()
			return err
		}
		select {
		case <-vm.done:
			return vm.Wait()
		case <-ctx.Done():
			vm.Kill()
			return fmt.Errorf("power down: %w", ctx.Err())
		case <-time.After(pressAgain):
		}
	}
}

// pressAgain is long enough for a guest that has seen the button to be off by then.
const pressAgain = 8 * time.Second

// Kill ends the VM at once, as a power cut would, and waits until it has ended.
func (vm *VM) Kill() {
	vm.process.Kill()
	<-vm.done
	if vm.Monitor != nil {
		vm.Monitor.Close()
	}
}

// socketPair returns both ends of a stream, ours as a connection.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp")
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// FreePort returns a TCP port of the loopback that nobody listens on: want, if that is free.
func FreePort(want int) (int, error) {
	for _, port := range []int{want, 0} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	return 0, errors.New("no free port on 127.0.0.1")
}
