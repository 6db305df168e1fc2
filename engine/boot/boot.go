package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Root mounts what the kernel offers, finds the root and switches into it. Afterwards:
//   - /proc, /sys, /dev and the file systems below them are mounted;
//   - / is the image's erofs, from the initramfs or from a slot of the disk, or the initramfs if there is no root image. It is shared: what a
//     plugin mounts all others see;
//   - /run, /tmp, /var and /etc are tmpfs, nosuid and nodev, /etc with the few files that programs expect;
//   - what systemd-stub has handed over of the image's policy for a TPM is in /run/cosi/boot.
func Root() error {
	if err := mountAll(kernelMounts); err != nil {
		return err
	}
	if err := loadEarly(earlyModules); err != nil {
		return err
	}
	policy := keepPolicy()
	switched, err := switchRoot()
	if err != nil {
		return err
	}
	if !switched {
		os.MkdirAll("/run/cosi", 0o755) // the initramfs is a root that can be written to
	}
	etc := keepEtc("/etc")
	if err := mountAll(memoryMounts); err != nil {
		return err
	}
	if err := restoreEtc("/etc", etc); err != nil {
		return err
	}
	if err := fillEtc("/etc"); err != nil {
		return err
	}
	if err := policy.restore(); err != nil {
		return err
	}
	if err := mountAll(systemMounts); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share /: %w", err)
	}
	return nil
}

// sysctls of every node. The panic of a kernel or of PID 1 ends in a reboot, and the kernel executes no helper program: modules that
// it asks for are loaded by PID 1 or not at all. CAP_PERFMON is enough to set kprobes, as upstream has it: Debian presets 3, which wants
// CAP_SYS_ADMIN. Processes that do not declare the class bpf are kept from perf_event_open by the filter that the launcher puts on.
var sysctls = []struct{ file, value string }{
	{"/proc/sys/kernel/panic", "30"},
	{"/proc/sys/kernel/panic_on_oops", "1"},
	{"/proc/sys/kernel/modprobe", "\n"},
	{"/proc/sys/kernel/core_pattern", "\n"},
	{"/proc/sys/kernel/perf_event_paranoid", "2"},
}

// Settle sets what belongs to a machine as a whole: sysctls, PID 1's own limits, the host name, the loopback link, Ctrl-Alt-Del off.
// Each is tried whatever became of the others; the errors are for the console.
func Settle() []error {
	var problems []error
	note := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	for _, s := range sysctls {
		note(os.WriteFile(s.file, []byte(s.value), 0))
	}
	note(os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0))
	note(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1024, Max: 1 << 19}))
	note(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
	note(hostname())
	note(loopback())
	return problems
}

// hostname names a machine that the kernel's command line has not named.
func hostname() error {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return err
	}
	if name := unix.ByteSliceToString(uname.Nodename[:]); name != "(none)" && name != "" {
		return nil
	}
	return unix.Sethostname([]byte("cosi"))
}

// loopback brings the link lo up: plugins may talk to themselves before there is a network.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	return nil
}

// KernelArgument reports whether the kernel's command line has a word.
func KernelArgument(word string) bool {
	_, there := kernelArgument(word)
	return there
}

// KernelValue returns the value of an argument of the kernel's command line, "" without one.
func KernelValue(name string) string {
	value, _ := kernelArgument(name)
	return value
}

// kernelArgument finds the last argument of that name, as the kernel does.
func kernelArgument(wanted string) (value string, there bool) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", false
	}
	for _, field := range strings.Fields(string(text)) {
		if name, v, _ := strings.Cut(field, "="); name == wanted {
			value, there = v, true
		}
	}
	return value, there
}

// Consoles opens the terminals that the kernel prints on. A machine without one has none.
func Consoles() []*os.File {
	text, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []*os.File
	for _, name := range strings.Fields(string(text)) {
		// A terminal must not become PID 1's controlling one: its keys would send signals.
		if f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
			all = append(all, f)
		}
	}
	return all
}

// consoleLevel lets warnings and what is worse through to the consoles, so that less does not scroll the status away.
const consoleLevel = 5

// QuietKernel sets the level of the kernel's messages on the consoles. They all stay in /dev/kmsg.
func QuietKernel() error {
	_, _, errno := unix.Syscall(unix.SYS_SYSLOG, unix.SYSLOG_ACTION_CONSOLE_LEVEL, 0, consoleLevel)
	if errno != 0 {
		return fmt.Errorf("console level: %w", errno)
	}
	return nil
}
