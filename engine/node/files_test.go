package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestABrokenDeclarationDoesNotCostTheOthers(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"broken":  `{"name":`,
		"good":    `{"name":"good","argv":["/x"]}`,
		"other":   `{"name":"another"}`,
		"runtime": `{"name":"runtime"}`,
	} {
		write(t, root, declaration.Dir+"/"+name+".json", text)
	}
	all, problems := declarations(root)
	if len(all) != 1 || all[0].Name != "good" || len(problems) != 3 {
		t.Errorf("%d declarations, problems %v; want good, and three problems", len(all), problems)
	}
	for _, problem := range problems {
		if !strings.Contains(problem.Error(), root) {
			t.Errorf("%v: does not name the file", problem)
		}
	}
}

func TestTheRuntimeIsAUserOfItsOwnOnAMachineOnly(t *testing.T) {
	for root, want := range map[string]uint32{"/": 900, t.TempDir(): 0} {
		d, err := Declaration(root, RuntimeName)
		if err != nil || d.UID != want || len(d.Capabilities)+len(d.Seccomp) != 0 {
			t.Errorf("Declaration(%q, runtime) = %+v, %v; want uid %d and no rights", root, d, err, want)
		}
	}
}

func TestReadImage(t *testing.T) {
	root := t.TempDir()
	if image, err := ReadImage(root); image.Version != "unknown" || !os.IsNotExist(err) {
		t.Errorf("without a file: %+v, %v", image, err)
	}
	write(t, root, "usr/lib/cosi/image.json", `{"version":"0.1","built":"2026-11-20T00:00:00Z","unpinned":false}`)
	if image, err := ReadImage(root); err != nil || image.Version != "0.1" || image.Built.Year() != 2026 {
		t.Errorf("ReadImage = %+v, %v", image, err)
	}
	write(t, root, "usr/lib/cosi/image.json", `{"version":`)
	if image, err := ReadImage(root); err == nil || image.Version != "unknown" {
		t.Errorf("of a broken file: %+v, %v", image, err)
	}
}

func TestAPluginSocketIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	for range 2 { // the file of an earlier engine is replaced
		uid, gid := -1, -1
		if os.Getuid() == 0 {
			uid, gid = 901, 902
		}
		f, err := listen(path, uid, gid)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Mode&0o777 != 0o600 || uid >= 0 && (stat.Uid != 901 || stat.Gid != 902) {
			t.Errorf("mode %o, owner %d:%d", stat.Mode, stat.Uid, stat.Gid)
		}
		conn, err := net.Dial("unix", path) // waits in the backlog until a runtime accepts
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if _, err := listen("/tmp/"+strings.Repeat("x", 120), -1, -1); err == nil || !strings.Contains(err.Error(), "107 bytes") {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestTheNetworkSocketIsBoundButClosedUntilSomebodyListens(t *testing.T) {
	f, err := bindNetwork(0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	address, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	port := 0
	switch a := address.(type) {
	case *unix.SockaddrInet6:
		port = a.Port
	case *unix.SockaddrInet4:
		port = a.Port
	}
	dial := func() error {
		conn, err := net.DialTimeout("tcp4", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String(), time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}
	if dial() == nil {
		t.Error("connected before anybody listens")
	}
	if other, err := bindNetwork(port, true); err == nil {
		other.Close()
		t.Error("somebody else can bind the port, and listen first")
	}
	if err := unix.Listen(int(f.Fd()), 1); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Errorf("IPv4 on the dual-stack socket: %v", err)
	}
}

func TestOwnDirectoriesAreMadeBelowRunCosiOnly(t *testing.T) {
	d := &declaration.Declaration{Paths: []declaration.Path{{Path: "/no/such/place", Write: true}, {Path: "/run/cosi/x"}}}
	if err := ownDirectories(d); err != nil {
		t.Errorf("ownDirectories: %v", err)
	}
	if _, err := os.Stat("/no"); err == nil {
		t.Error("/no was made")
	}
}
