package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares what a person reads with testdata/NAME.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got)\n%s", name, diff)
	}
}

// buffer is a bytes.Buffer that a running command may write while the test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// person is somebody at a terminal: a home directory, a clock, and what the last command printed.
type person struct {
	t        *testing.T
	home     string
	now      time.Time
	endpoint string
	in       string
	out, err *buffer
	rand     io.Reader
}

func newPerson(t *testing.T, endpoint string) *person {
	t.Helper()
	return &person{t: t, home: t.TempDir(), now: time.Now(), endpoint: endpoint, out: &buffer{}, err: &buffer{}, rand: rand.NewChaCha8([32]byte{1})}
}

// run runs a command and returns its exit code.
func (p *person) run(args ...string) int {
	p.out, p.err = &buffer{}, &buffer{}
	return p.runFor(p.t.Context(), args...)
}

// runFor is run until ctx ends; the output goes to buffers that the caller has made.
func (p *person) runFor(ctx context.Context, args ...string) int {
	all := []string{"--config", filepath.Join(p.home, "config.yaml")}
	if p.endpoint != "" {
		all = append(all, "--endpoint", p.endpoint)
	}
	return run(ctx, append(all, args...), &app{
		in: strings.NewReader(p.in), out: p.out, err: p.err, rand: p.rand, now: func() time.Time { return p.now },
	})
}

// want runs a command that must end with a code, and returns everything it printed.
func (p *person) want(code int, args ...string) string {
	p.t.Helper()
	if got := p.run(args...); got != code {
		p.t.Errorf("cosictl %s: exit code %d; want %d\n%s%s", strings.Join(args, " "), got, code, p.out, p.err)
	}
	return p.out.String() + p.err.String()
}

// file writes a file into the home and returns its path.
func (p *person) file(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

var (
	times = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	ages  = regexp.MustCompile(`\b\d+s\b`)

	versionLine = regexp.MustCompile(`version: '\d+'`)
	jsonVersion = regexp.MustCompile(`"version": "\d+"`)
	clientLine  = regexp.MustCompile(`Client:  .*`)
	described   = regexp.MustCompile(`Version:     \d+, running`)
	updated     = regexp.MustCompile(`(?m)^Updated: .*\n`)
	columns     = regexp.MustCompile(`  +`)
	dates       = regexp.MustCompile(`\d{4}-\d\d-\d\d`)
)

// timeless replaces what differs from run to run.
func (p *person) timeless(text string) string {
	text = times.ReplaceAllString(text, "TIME")
	text = ages.ReplaceAllString(text, "0s")
	return strings.ReplaceAll(text, p.home, "HOME")
}

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "cosictl"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(programs)
	os.Exit(code)
}

// programs is where the tests build what they run.
var programs string

// The real runtime and PID 1, each built once for all tests that need it.
var (
	buildRuntime = sync.OnceValues(func() (string, error) { return build("engine/runtime") })
	buildEngine  = sync.OnceValues(func() (string, error) { return build("engine") })
)

func build(program string) (string, error) {
	binary := filepath.Join(programs, filepath.Base(program))
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/cosi-os/cosi/"+program).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// startRuntime serves the State of a real runtime alone on a socket, until the test ends.
func startRuntime(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "c") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	stop := startAt(t, socket)
	t.Cleanup(stop)
	return socket
}

// startAt starts a runtime on a socket and returns what ends it; ending it twice is harmless.
func startAt(t *testing.T, socket string) (stop func()) {
	t.Helper()
	binary, err := buildRuntime()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--listen", "unix://"+socket)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
	for range 200 {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return stop
		}
		time.Sleep(25 * time.Millisecond)
	}
	stop()
	t.Fatal("the runtime does not listen")
	return nil
}
