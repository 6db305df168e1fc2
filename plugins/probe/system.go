package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// systemAttempts go beyond the sandbox.
func systemAttempts() []attempt {
	return []attempt{
		{"execve", "execute its own program", func() error {
			return unix.Exec("/proc/self/exe", []string{"probe", "--version"}, nil)
		}},
		{"ptrace", "trace process 1", func() error { return unix.PtraceSeize(1) }},
		{"signal", "signal process 1", func() error { return unix.Kill(1, unix.SIGURG) }}, // not SIGCONT: within a session anybody may send it
		{"signal-others", "find a process that it may signal, the runtime and the other plugins among them", signalOthers},
		{"finit-module", "load its own program as a kernel module", func() error {
			return with("/proc/self/exe", os.O_RDONLY, func(fd int) error { return unix.FinitModule(fd, "", 0) })
		}},
		{"delete-module", "unload a kernel module", func() error { return unix.DeleteModule("no_such_module", unix.O_NONBLOCK) }},
		{"plugin-socket", "connect to the socket of mount", func() error { return connect("/run/cosi/plugin/mount.sock") }},
		{"device-kmsg", "open /dev/kmsg", func() error { return with("/dev/kmsg", os.O_RDONLY, nil) }},
		{"device-mem", "open /dev/mem", func() error { return with("/dev/mem", os.O_RDONLY, nil) }},
		{"file-outside", "create /var/probe", func() error {
			return with("/var/probe", os.O_WRONLY|os.O_CREATE, func(int) error { return os.Remove("/var/probe") })
		}},
		{"root-read-only", "create /usr/probe", func() error { return with("/usr/probe", os.O_WRONLY|os.O_CREATE, nil) }},
		{"mount", "mount a tmpfs on /tmp", func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") }},
		{"remount-root", "remount / writable", func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT, "") }},
		{"unmount", "unmount /tmp", func() error { return unix.Unmount("/tmp", 0) }},
		{"reboot", "switch Ctrl-Alt-Del off", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }},
		{"raw-socket", "open a raw IP socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"packet-socket", "open a packet socket", func() error { return socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0) }},
		{"bpf", "make a BPF map", bpf},
		{"namespace", "make a mount namespace", unshare},
		{"keyring", "make a keyring", func() error { _, err := unix.KeyctlJoinSessionKeyring("probe"); return err }},
		{"clock", "set the clock to what it is", func() error {
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
				return err
			}
			return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
		}},
	}
}

// with opens path and, if f is set, calls it with the descriptor.
func with(path string, flags int, f func(fd int) error) error {
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if f == nil {
		return nil
	}
	return f(int(file.Fd()))
}

// lastPID is above every process of a node that has just started.
const lastPID = 2000

// signalOthers asks for each process but its own whether it may be signalled.
func signalOthers() error {
	err := error(unix.ESRCH)
	for pid := 1; pid <= lastPID; pid++ {
		switch answer := unix.Kill(pid, 0); {
		case answer == nil && !own(pid):
			return nil
		case errors.Is(answer, unix.EPERM):
			err = answer
		}
	}
	return err
}

// own tells the numbers of this process and its threads, which kill takes too.
func own(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid))
	return err == nil
}

func socket(domain, kind, protocol int) error {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func connect(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect %s: %w", path, err)
	}
	return nil
}

// bpf makes an array of one element.
func bpf() error {
	attributes := struct{ mapType, keySize, valueSize, maxEntries uint32 }{mapType: unix.BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: 4, maxEntries: 1}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attributes)), unsafe.Sizeof(attributes))
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

// unshare tries it in a thread that ends with it. The kernel refuses a user namespace to a process of several threads with EINVAL,
// after the filter had its say; a mount namespace it would give to who may have one.
func unshare() error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		result <- unix.Unshare(unix.CLONE_NEWNS)
	}()
	return <-result
}
