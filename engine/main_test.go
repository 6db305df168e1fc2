package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/wire"
)

// TestMain is also the engine itself ("--root", "launch"), a runtime and a plugin, told apart by how it was started.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "runtime":
		actRuntime()
	case filepath.Base(os.Args[0]) == "plugin":
		actPlugin()
	case len(os.Args) > 1 && (os.Args[1] == "--root" || os.Args[1] == "launch"):
		main()
	default:
		os.Exit(m.Run())
	}
}

// actRuntime prints what it is told, in words that the tests look for, and obeys DIR/order.
func actRuntime() {
	fds := map[string]int{}
	for field := range strings.SplitSeq(os.Getenv(wire.EnvDescriptors), ",") {
		name, number, _ := strings.Cut(field, "=")
		fds[name], _ = strconv.Atoi(number)
	}
	conn := wire.NewConn(os.NewFile(uintptr(fds[wire.FDEngine]), "engine"))
	go accept(fds[wire.FDPluginPrefix+"echo"])
	go func() { // end in order: read what was said before
		term := make(chan os.Signal, 1)
		signal.Notify(term, unix.SIGTERM)
		<-term
		time.Sleep(200 * time.Millisecond)
		os.Exit(0)
	}()
	outputs := 0
	for {
		var up wire.Up
		if conn.Receive(&up) != nil {
			return
		}
		switch {
		case up.Hello != nil:
			fmt.Println("HELLO", up.Hello.EngineVersion, up.Hello.PID1, len(fds))
		case up.Output != nil:
			outputs++
			if up.Output.Line == "please die" {
				os.Exit(7)
			}
			if up.Output.Line == "please end" {
				conn.Send(wire.Down{Shutdown: &wire.Shutdown{Reason: "the plugin asked"}})
			}
		case up.Synced != nil:
			fmt.Println("SYNCED", outputs > 0)
			conn.Send(wire.Down{Console: &wire.Console{Lines: []string{"=== status ==="}}})
		case up.Started != nil:
			fmt.Println("STARTED", up.Started.Name, up.Started.Restarts)
		case up.Confined != nil:
			fmt.Println("CONFINED", up.Confined.Name, up.Confined.NoNewPrivs, up.Confined.SeccompFilters > 0)
		case up.Exited != nil:
			fmt.Println("EXITED", up.Exited.Name, up.Exited.How)
		case up.Stopping != nil:
			fmt.Println("STOPPING", up.Stopping.Reason)
		}
	}
}

// accept greets whoever connects to a plugin's socket.
func accept(fd int) {
	listener, err := net.FileListener(os.NewFile(uintptr(fd), "plugin"))
	if err != nil {
		fmt.Println("listen:", err)
		return
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		fmt.Fprintln(conn, "welcome")
		conn.Close()
	}
}

// actPlugin connects, says what it was told, and prints its argument.
func actPlugin() {
	conn, err := net.Dial("unix", strings.TrimPrefix(os.Getenv(wire.EnvEndpoint), "unix://"))
	if err != nil {
		fmt.Println("dial:", err)
		return
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Println("GREETED", os.Getenv(wire.EnvName), strings.TrimSpace(line), unix.Unshare(unix.CLONE_FS))
	if marker := os.Args[2]; marker != "" {
		if f, err := os.OpenFile(marker, os.O_CREATE|os.O_EXCL, 0o600); err == nil { // the first time only
			f.Close()
			time.Sleep(300 * time.Millisecond)
			fmt.Println(os.Args[1])
		}
	}
	time.Sleep(time.Hour)
}

// dir makes a node's root with a runtime and the plugin echo, which once says text.
func dir(t *testing.T, text string) string {
	t.Helper()
	root, err := os.MkdirTemp("", "engine") // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"usr/bin/runtime", "usr/lib/cosi/bin/plugin"} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755)
		if err := os.Symlink(self, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"plugins/echo.json": fmt.Sprintf(`{"name":"echo","argv":["/usr/lib/cosi/bin/plugin",%q,%q]}`, text, filepath.Join(root, "marker")),
		"plugins/bad.json":  `{"name":"bad","argv":["/x"],"seccomp":["everything"]}`,
		"image.json":        `{"version":"7.7","built":"2026-01-01T00:00:00Z"}`,
	} {
		path := filepath.Join(root, "usr/lib/cosi", name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// engineOf starts `engine --root` and returns its process and a function that waits for a line on its console.
func engineOf(t *testing.T, root string) (*exec.Cmd, func(string)) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "--root", root, "--port", "0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // in order: an engine that is killed leaves its processes behind
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
	})
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var seen []string
	return cmd, func(want string) {
		t.Helper()
		for _, line := range seen {
			if line == want {
				return
			}
		}
		timeout := time.After(20 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the engine ended without %q:\n%s", want, strings.Join(seen, "\n"))
				}
				seen = append(seen, line)
				if line == want {
					return
				}
			case <-timeout:
				t.Fatalf("no line %q:\n%s", want, strings.Join(seen, "\n"))
			}
		}
	}
}

func TestANodeRunsBesideAnotherInit(t *testing.T) {
	root := dir(t, "")
	cmd, wait := engineOf(t, root)
	for _, line := range []string{
		"engine: " + root + `/usr/lib/cosi/plugins/bad.json: seccomp[0]: "everything" is not a class ([mount module bpf ptrace namespaces keys reboot raw-network time])`,
		"runtime: HELLO 7.7 false 4",
		"runtime: STARTED echo 0",
		"runtime: CONFINED echo true true",
		"runtime: CONFINED runtime true true",
		"echo: GREETED echo welcome operation not permitted",
		"=== status ===",
	} {
		wait(line)
	}
	if _, err := os.Stat(filepath.Join(root, "run/cosi/runtime.sock")); err != nil {
		t.Errorf("the local socket: %v", err)
	}
	cmd.Process.Signal(unix.SIGTERM)
	wait("runtime: STOPPING terminated signal received")
	wait("runtime: EXITED echo signal terminated")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the engine ended with %v; want exit 0", err)
	}
}

func TestTheRuntimeComesBackAndIsToldEverything(t *testing.T) {
	_, wait := engineOf(t, dir(t, "please die"))
	wait("echo: GREETED echo welcome operation not permitted")
	// The dead runtime's replay of the rings holds the line that killed it: it dies again, with a longer wait each time.
	for _, line := range []string{"echo: please die", "runtime: STARTED echo 0", "runtime: EXITED runtime exit 7"} {
		wait(line)
	}
}

func TestTheRuntimeEndsTheNode(t *testing.T) {
	cmd, wait := engineOf(t, dir(t, "please end"))
	wait("engine: ending: the plugin asked")
	wait("engine: runtime ended: exit 0")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the engine ended with %v; want exit 0", err)
	}
}

func TestADirectoryThatIsNoNodesStaysAsItIs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "mistyped")
	out, err := exec.Command("/proc/self/exe", "--root", root, "--port", "0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--root: stat "+root+"/usr/bin/runtime: no such file") || !strings.Contains(string(out), "cosi-image root") {
		t.Errorf("--root %s: %v, %s", root, err, out)
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("the engine has made %s (%v)", root, err)
	}
}

func TestARootWithoutRoomForSocketsIsRefusedInWords(t *testing.T) {
	out, err := exec.Command("/proc/self/exe", "--root", "/").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is the root of a machine") {
		t.Errorf("--root /: %v, %s", err, out)
	}
}
