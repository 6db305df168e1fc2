package launch

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

// TestMain is also the launcher ("launch", with a Program in the variable PROGRAM) and the program that it starts ("show FILE…").
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "launch":
		var p Program
		if err := json.Unmarshal([]byte(os.Getenv("PROGRAM")), &p); err != nil {
			fmt.Println(err)
		}
		Exec(p)
		os.Exit(1)
	case len(os.Args) > 1 && os.Args[1] == "show":
		show(os.Args[2:])
	default:
		os.Exit(m.Run())
	}
}

// show prints what the process is and which files it can read.
func show(files []string) {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		for _, key := range []string{"Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp_filters"} {
			if strings.HasPrefix(line, key) {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
	var self, stat unix.Stat_t
	unix.Stat(os.Args[0], &self) // what the test hands over; the Go runtime has descriptors of its own
	for fd := 3; fd < 20; fd++ {
		if unix.Fstat(fd, &stat) == nil && stat.Ino == self.Ino {
			fmt.Println("open", fd)
		}
	}
	fmt.Println("unshare", unix.Unshare(unix.CLONE_FS))
	for _, file := range files {
		_, err := os.ReadFile(file)
		fmt.Println("read", file, err == nil)
		_, err = os.ReadDir(file)
		fmt.Println("list", file, err == nil)
	}
}

// launched runs a program through the launcher and returns its output and what the supervisor was told.
func launched(t *testing.T, p Program, passed ...*os.File) (out, told string) {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "launch")
	cmd.Env = []string{"PROGRAM=" + string(data)}
	cmd.ExtraFiles = append([]*os.File{w}, passed...)
	text, _ := cmd.CombinedOutput()
	w.Close()
	status, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), string(status)
}

// here copies the test binary to where any user may execute it.
func here(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "launch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// dynamic reports whether an executable names a loader.
func dynamic(t *testing.T, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func contains(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w+"\n") {
			t.Errorf("no line %q in\n%s", w, out)
		}
	}
}

func needRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
}

func TestTheProgramHasItsUserAndItsCapabilitiesOnly(t *testing.T) {
	needRoot(t)
	path := here(t)
	secret := filepath.Join(filepath.Dir(path), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	passed, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	out, told := launched(t, Program{Root: "/", Groups: []uint32{10000, 10003}, Keep: 1, Declaration: &declaration.Declaration{
		Name: "x", Argv: []string{path, "show", secret}, UID: 901, GID: 902, Capabilities: []string{"CAP_NET_ADMIN"}, NoLandlock: true,
	}}, passed, passed)
	contains(t, out, "Uid: 901 901 901 901", "Gid: 902 902 902 902", "Groups: 10000 10003", "NoNewPrivs: 1", "Seccomp_filters: 1",
		"CapPrm: 0000000000001000", "CapEff: 0000000000001000", "CapBnd: 0000000000001000", "CapAmb: 0000000000001000",
		"open 4", "unshare operation not permitted", "read "+secret+" false")
	if strings.Contains(out, "open 5") || told != "" {
		t.Errorf("a descriptor too many, or a line to the supervisor: %q\n%s", told, out)
	}
}

func TestRootUnderAnEngineOfAnotherRootKeepsItsUser(t *testing.T) {
	needRoot(t)
	path := here(t)
	out, told := launched(t, Program{Root: filepath.Dir(path), Declaration: &declaration.Declaration{
		Name: "x", Argv: []string{"/program", "show"}, Seccomp: []declaration.Class{declaration.ClassNamespaces},
	}})
	contains(t, out, "Uid: 0 0 0 0", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "NoNewPrivs: 1", "unshare <nil>")
	if told != "" {
		t.Errorf("told %q", told)
	}
}

func TestLandlockLeavesWhatWasDeclared(t *testing.T) {
	if l, err := newLandlock(nil); err != nil || l == nil {
		t.Skipf("no Landlock in this kernel (%v)", err)
	}
	path := here(t)
	if dynamic(t, path) {
		t.Skip("the test binary needs a loader (-race): Landlock leaves a program its own file only")
	}
	declared, other := filepath.Join(filepath.Dir(path), "a"), filepath.Join(filepath.Dir(path), "b")
	for _, file := range []string{declared, other} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, told := launched(t, Program{Root: "/", Declaration: &declaration.Declaration{
		Name: "x", Argv: []string{path, "show", declared, other, filepath.Dir(other), "/proc/1", "/etc/hostname", "/proc/self/stat", "/proc/1/stat"},
		Paths: []declaration.Path{{Path: declared}, {Path: filepath.Dir(other), List: true}, {Path: "/no/such/path", Write: true}},
	}})
	contains(t, out, "read "+declared+" true", "read "+other+" false", "list "+filepath.Dir(other)+" true", "list /proc/1 false", "read /etc/hostname true", "read /proc/self/stat true", "read /proc/1/stat false")
	if !strings.HasPrefix(told, "landlock ") {
		t.Errorf("told %q; want the ABI", told)
	}
}

func TestAllowancesOpenTheDirectoryOfAPattern(t *testing.T) {
	all := allowances(&declaration.Declaration{Argv: []string{"/bin/x"}, Devices: []declaration.Device{
		{Path: "/dev/input/event*"}, {Path: "/dev/vda", Write: true}}})
	got := map[string]uint64{}
	for _, a := range all {
		got[a.path] = a.access
	}
	if got["/dev/input"]&unix.LANDLOCK_ACCESS_FS_READ_FILE == 0 || got["/dev/input"]&unix.LANDLOCK_ACCESS_FS_WRITE_FILE != 0 {
		t.Errorf("/dev/input: %x", got["/dev/input"])
	}
	if got["/dev/vda"]&unix.LANDLOCK_ACCESS_FS_WRITE_FILE == 0 {
		t.Errorf("/dev/vda: %x", got["/dev/vda"])
	}
}

func TestARefusalIsToldInWords(t *testing.T) {
	for _, test := range []struct {
		d    declaration.Declaration
		want string
	}{
		{declaration.Declaration{Argv: []string{"/no/such/program"}, NoLandlock: true}, "error /no/such/program: no such file or directory"},
		{declaration.Declaration{}, "error argv: is empty"},
	} {
		if _, told := launched(t, Program{Root: "/", Declaration: &test.d}); told != test.want+"\n" {
			t.Errorf("told %q; want %q", told, test.want)
		}
	}
	if _, err := capabilities([]string{"CAP_FLY"}); err == nil {
		t.Error("CAP_FLY was accepted")
	}
}
