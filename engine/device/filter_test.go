package device

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

const envConfined = "COSI_TEST_CONFINED"

// TestMain is also the process in the control group: it tries what its environment says and prints the errors.
func TestMain(m *testing.M) {
	dir := os.Getenv(envConfined)
	if dir == "" {
		os.Exit(m.Run())
	}
	got := map[string]syscall.Errno{}
	open := func(name, path string, flags int) {
		fd, err := unix.Open(path, flags, 0)
		if errors.As(err, new(syscall.Errno)) {
			got[name] = err.(syscall.Errno)
			return
		}
		unix.Close(fd)
		got[name] = 0
	}
	open("null", "/dev/null", unix.O_RDWR)
	open("to read", filepath.Join(dir, "readable"), unix.O_RDONLY)
	open("to read, for writing", filepath.Join(dir, "readable"), unix.O_RDWR)
	open("to write", filepath.Join(dir, "writable"), unix.O_RDWR)
	open("undeclared", filepath.Join(dir, "undeclared"), unix.O_RDONLY)
	got["make"], _ = unix.Mknod(filepath.Join(dir, "made"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 2))).(syscall.Errno)
	json.NewEncoder(os.Stdout).Encode(got)
}

// TestFilterOnTheKernel runs where control groups, device nodes and BPF are permitted: as root. Each step is tried by a process with all
// capabilities.
func TestFilterOnTheKernel(t *testing.T) {
	groups, dir := t.TempDir(), t.TempDir()
	if err := unix.Mount("none", groups, "cgroup2", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Remove(filepath.Join(groups, "cosi-filter"))
		unix.Unmount(groups, 0)
	})
	node := func(name string, major, minor uint32) string {
		path := filepath.Join(dir, name)
		os.Remove(path)
		if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); errors.Is(err, unix.EPERM) {
			t.Skip("making device nodes is not permitted here")
		} else if err != nil {
			t.Fatal(err)
		}
		return path
	}
	a := NewAccess([]*declaration.Declaration{plugin("x",
		declaration.Device{Path: dir + "/readable"}, declaration.Device{Path: dir + "/writ*", Write: true})})
	if err := a.Confine("x"); errors.Is(err, unix.EPERM) {
		t.Skip("BPF is not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(groups, "cosi-filter")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	expect := func(when string, want map[string]syscall.Errno) {
		t.Helper()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), envConfined+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]syscall.Errno{}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		for name, errno := range want {
			if got[name] != errno {
				t.Errorf("%s: %s: %v; want %v", when, name, got[name], errno)
			}
		}
	}
	const kmsg = 11 // 1:11, which root can open
	node("undeclared", 1, kmsg)
	expect("without a filter", map[string]syscall.Errno{"undeclared": 0, "make": 0})
	os.Remove(filepath.Join(dir, "made"))
	if Filtered(path) {
		t.Error("Filtered before there is a filter")
	}
	if err := a.Attach("x", group); err != nil {
		t.Fatal(err)
	}
	if !Filtered(path) {
		t.Error("not Filtered with a filter")
	}
	node("writable", 1, kmsg)
	expect("before it is granted", map[string]syscall.Errno{"null": 0, "to write": unix.EPERM, "undeclared": unix.EPERM, "make": unix.EPERM})
	grant := func(path string) {
		t.Helper()
		if err := a.Grant(path); err != nil {
			t.Fatal(err)
		}
	}
	grant(filepath.Join(dir, "writable"))
	expect("granted", map[string]syscall.Errno{"to write": 0})
	os.Remove(filepath.Join(dir, "writable"))
	grant(filepath.Join(dir, "undeclared"))
	expect("when another device has the number", map[string]syscall.Errno{"undeclared": unix.EPERM})
	os.Remove(filepath.Join(dir, "undeclared"))
	grant(node("readable", 1, kmsg))
	expect("granted for reading", map[string]syscall.Errno{"to read": 0, "to read, for writing": unix.EPERM})
}

// What a filter has been told it is not told again. This one has no map to be told by.
func TestAFilterIsToldOnce(t *testing.T) {
	declared, other := key{unix.BPF_DEVCG_DEV_BLOCK, 8, 0}, key{unix.BPF_DEVCG_DEV_BLOCK, 8, 16}
	f := &filter{devices: -1, told: map[key]uint32{declared: mayRead}}
	for _, tc := range []struct {
		key    key
		access uint32
		told   bool
	}{{declared, mayRead, false}, {other, 0, false}, {declared, mayRead | mayWrite, true}, {declared, 0, true}, {other, mayRead, true}, {declared, mayRead, false}} {
		if err := f.allow(tc.key, tc.access); errors.Is(err, unix.EBADF) != tc.told || err != nil && !tc.told {
			t.Errorf("allow(%v, %d) = %v; want that the kernel is told: %v", tc.key, tc.access, err, tc.told)
		}
	}
}

func TestNobodyDisturbs(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	policy := func() uint32 {
		attributes, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return attributes.Policy
	}
	usual := policy()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); errors.Is(err, unix.EPERM) {
		t.Skip("real-time priorities are not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: usual}, 0); err != nil {
		t.Fatal(err)
	}
	during := usual
	undisturbed(func() { during = policy() })
	if after := policy(); during != unix.SCHED_FIFO || after != usual {
		t.Errorf("policy %d meanwhile, and %d after; want %d and %d", during, after, unix.SCHED_FIFO, usual)
	}
}
