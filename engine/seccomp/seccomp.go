// Package seccomp makes the filter that the launcher puts on a process: classes of system calls are answered with EPERM.
//
// It denies by class and allows the rest, because an allow-list breaks with each Go release. Three things are refused whatever the
// declaration says: calls of another architecture's table (i386, x32), io_uring (it does work outside the filter), and, unless
// namespaces are allowed, clone3 with ENOSYS: its flags lie in memory where a filter cannot look, and callers fall back to clone.
package seccomp

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

// openTreeAttr is open_tree_attr(2) of Linux 6.15, the same number everywhere.
const openTreeAttr = 467

// calls of a class that are denied by their number alone.
var calls = map[declaration.Class][]uint32{
	declaration.ClassMount: {unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN,
		unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, openTreeAttr},
	declaration.ClassModule: {unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE},
	declaration.ClassBPF:    {unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN},
	declaration.ClassPtrace: {unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP,
		unix.SYS_PIDFD_GETFD},
	declaration.ClassNamespaces: {unix.SYS_UNSHARE, unix.SYS_SETNS},
	declaration.ClassKeys:       {unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL},
	declaration.ClassReboot:     {unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_SWAPON, unix.SYS_SWAPOFF},
	declaration.ClassTime:       {unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX},
}

// always denied.
var always = []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// namespaceFlags are the CLONE_NEW* that clone(2) takes.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in struct seccomp_data.
const (
	offsetNumber       = 0
	offsetArchitecture = 4
	offsetArgument0    = 16 // low word: amd64 and arm64 are little-endian
	offsetArgument1    = 24
)

// Program assembles the filter for the architecture that this binary is built for. Classes in allowed are left alone.
func Program(allowed []declaration.Class) ([]unix.SockFilter, error) {
	architecture, err := auditArchitecture()
	if err != nil {
		return nil, err
	}
	a := &assembler{}
	a.load(offsetArchitecture)
	a.unless(architecture, "deny")
	a.load(offsetNumber)
	if runtime.GOARCH == "amd64" {
		a.atLeast(0x40000000, "deny") // x32
	}
	denied := slices.Clone(always)
	for _, class := range declaration.Classes {
		if !slices.Contains(allowed, class) {
			denied = append(denied, calls[class]...)
		}
	}
	for _, number := range denied {
		a.when(number, "deny")
	}
	namespaces := !slices.Contains(allowed, declaration.ClassNamespaces)
	raw := !slices.Contains(allowed, declaration.ClassRawNetwork)
	if namespaces {
		a.when(unix.SYS_CLONE3, "absent")
		a.when(unix.SYS_CLONE, "clone")
	}
	if raw {
		a.when(unix.SYS_SOCKET, "socket")
	}
	a.answer(unix.SECCOMP_RET_ALLOW)
	if namespaces {
		a.label("clone")
		a.load(offsetArgument0)
		a.anyBit(namespaceFlags, "deny")
		a.answer(unix.SECCOMP_RET_ALLOW)
		a.label("absent")
		a.answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	}
	if raw {
		a.label("socket")
		a.rawSocket()
	}
	a.label("deny")
	a.answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
	return a.assemble()
}

// rawSocket denies AF_PACKET, and SOCK_RAW of the internet families. Netlink libraries open AF_NETLINK with SOCK_RAW: that is no
// access to the wire.
func (a *assembler) rawSocket() {
	a.load(offsetArgument0)
	a.when(unix.AF_PACKET, "deny")
	a.when(unix.AF_INET, "type")
	a.when(unix.AF_INET6, "type")
	a.answer(unix.SECCOMP_RET_ALLOW)
	a.label("type")
	a.load(offsetArgument1)
	a.and(0xf) // the rest is SOCK_CLOEXEC and SOCK_NONBLOCK
	a.when(unix.SOCK_RAW, "deny")
	a.when(unix.SOCK_PACKET, "deny")
	a.answer(unix.SECCOMP_RET_ALLOW)
}

func auditArchitecture() (uint32, error) {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64, nil
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64, nil
	}
	return 0, fmt.Errorf("seccomp: no filter for %s", runtime.GOARCH)
}

// Install puts the program on the calling thread. Without CAP_SYS_ADMIN the thread must have no_new_privs. The caller has locked
// the thread and replaces the process from it: other threads stay unfiltered.
func Install(program []unix.SockFilter) error {
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
