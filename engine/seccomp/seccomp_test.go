package seccomp

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

// probe is a system call with arguments that fail, or do nothing, where it is allowed.
type probe struct {
	name  string
	class declaration.Class // empty: always denied
	trap  uintptr
	args  [3]uintptr
}

var probes = []probe{
	{"mount", declaration.ClassMount, unix.SYS_MOUNT, [3]uintptr{1, 1, 1}},
	{"umount2", declaration.ClassMount, unix.SYS_UMOUNT2, [3]uintptr{1, 0, 0}},
	{"pivot_root", declaration.ClassMount, unix.SYS_PIVOT_ROOT, [3]uintptr{1, 1, 0}},
	{"fsopen", declaration.ClassMount, unix.SYS_FSOPEN, [3]uintptr{1, 0, 0}},
	{"finit_module", declaration.ClassModule, unix.SYS_FINIT_MODULE, [3]uintptr{^uintptr(0), 1, 0}},
	{"delete_module", declaration.ClassModule, unix.SYS_DELETE_MODULE, [3]uintptr{1, 0, 0}},
	{"bpf", declaration.ClassBPF, unix.SYS_BPF, [3]uintptr{999, 1, 8}},
	{"perf_event_open", declaration.ClassBPF, unix.SYS_PERF_EVENT_OPEN, [3]uintptr{1, 0, 0}},
	{"ptrace", declaration.ClassPtrace, unix.SYS_PTRACE, [3]uintptr{999, 1 << 30, 0}},
	{"process_vm_readv", declaration.ClassPtrace, unix.SYS_PROCESS_VM_READV, [3]uintptr{1 << 30, 0, 0}},
	{"unshare", declaration.ClassNamespaces, unix.SYS_UNSHARE, [3]uintptr{1, 0, 0}},
	{"setns", declaration.ClassNamespaces, unix.SYS_SETNS, [3]uintptr{^uintptr(0), 0, 0}},
	// CLONE_NEWNS and CLONE_FS exclude each other: EINVAL where clone is allowed.
	{"clone", declaration.ClassNamespaces, unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWNS | unix.CLONE_FS, 0, 0}},
	{"keyctl", declaration.ClassKeys, unix.SYS_KEYCTL, [3]uintptr{999, 0, 0}},
	{"add_key", declaration.ClassKeys, unix.SYS_ADD_KEY, [3]uintptr{1, 1, 0}},
	{"reboot", declaration.ClassReboot, unix.SYS_REBOOT, [3]uintptr{1, 1, 0}},
	{"swapon", declaration.ClassReboot, unix.SYS_SWAPON, [3]uintptr{1, 0, 0}},
	{"kexec_file_load", declaration.ClassReboot, unix.SYS_KEXEC_FILE_LOAD, [3]uintptr{^uintptr(0), ^uintptr(0), 0}},
	{"socket packet", declaration.ClassRawNetwork, unix.SYS_SOCKET, [3]uintptr{unix.AF_PACKET, unix.SOCK_DGRAM, 0}},
	{"socket raw", declaration.ClassRawNetwork, unix.SYS_SOCKET, [3]uintptr{unix.AF_INET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 1}},
	{"socket raw 6", declaration.ClassRawNetwork, unix.SYS_SOCKET, [3]uintptr{unix.AF_INET6, unix.SOCK_RAW, 58}},
	{"clock_settime", declaration.ClassTime, unix.SYS_CLOCK_SETTIME, [3]uintptr{0, 1, 0}},
	{"adjtimex", declaration.ClassTime, unix.SYS_ADJTIMEX, [3]uintptr{1, 0, 0}},
	{"io_uring_setup", "", unix.SYS_IO_URING_SETUP, [3]uintptr{1, 1, 0}},
}

// TestMain is also the confined child: "seccomp-child CLASS,CLASS" prints what each probe was answered.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "seccomp-child" {
		child(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

func child(allowed string) {
	runtime.LockOSThread()
	var classes []declaration.Class
	for name := range strings.SplitSeq(allowed, ",") {
		classes = append(classes, declaration.Class(name))
	}
	program, err := Program(classes)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err == nil {
		err = Install(program)
	}
	if err != nil {
		fmt.Println("install:", err)
		os.Exit(1)
	}
	for _, p := range probes {
		_, _, errno := unix.RawSyscall(p.trap, p.args[0], p.args[1], p.args[2])
		fmt.Printf("%s=%d\n", p.name, errno)
	}
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
	fmt.Printf("clone3=%d\n", errno)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	fmt.Printf("netlink=%v\n", err == nil && fd > 0)
}

func answers(t *testing.T, allowed ...declaration.Class) map[string]string {
	t.Helper()
	var names []string
	for _, class := range allowed {
		names = append(names, string(class))
	}
	out, err := exec.Command("/proc/self/exe", "seccomp-child", strings.Join(names, ",")).CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, answer, _ := strings.Cut(strings.TrimSpace(line), "=")
		all[name] = answer
	}
	return all
}

func TestEveryClassIsDenied(t *testing.T) {
	got := answers(t)
	for _, p := range probes {
		if got[p.name] != "1" {
			t.Errorf("%s: errno %s; want 1 (EPERM)", p.name, got[p.name])
		}
	}
	if want := fmt.Sprint(int(unix.ENOSYS)); got["clone3"] != want {
		t.Errorf("clone3: errno %s; want %s (ENOSYS)", got["clone3"], want)
	}
	if got["netlink"] != "true" {
		t.Error("a raw netlink socket was refused")
	}
}

func TestAnAllowedClassIsLeftAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the kernel itself answers EPERM to anyone but root")
	}
	plain := answers(t, declaration.Classes...)
	for _, class := range declaration.Classes {
		got := answers(t, class)
		for _, p := range probes {
			switch {
			case p.class != class && got[p.name] != "1":
				t.Errorf("%s allowed: %s: errno %s; want 1 (EPERM)", class, p.name, got[p.name])
			case p.class == class && got[p.name] != plain[p.name]:
				t.Errorf("%s allowed: %s: errno %s; want %s as without a filter", class, p.name, got[p.name], plain[p.name])
			}
		}
	}
	if plain["mount"] == "1" || plain["clone"] == "1" || plain["socket raw"] == "1" || plain["io_uring_setup"] != "1" {
		t.Errorf("all classes allowed: %v", plain)
	}
}

func TestEveryClassHasAProbe(t *testing.T) {
	for _, class := range declaration.Classes {
		if !slices.ContainsFunc(probes, func(p probe) bool { return p.class == class }) {
			t.Errorf("no probe for class %s", class)
		}
	}
}

func TestAssembleRefusesWhatAJumpCannotReach(t *testing.T) {
	far := &assembler{}
	far.when(1, "end")
	for range 256 {
		far.load(0)
	}
	far.label("end")
	if _, err := far.assemble(); err == nil {
		t.Error("a jump over 256 instructions was assembled")
	}
	missing := &assembler{}
	missing.when(1, "nowhere")
	if _, err := missing.assemble(); err == nil {
		t.Error("a jump to no label was assembled")
	}
}
