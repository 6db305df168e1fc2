package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/tools/qemu"
)

const (
	// pxeClients is how many machines boot at a time, pxeRounds how often they fetch what they boot; of each server the quickest round counts.
	pxeClients, pxeRounds = 100, 3

	// role, in the environment, makes this program one of those that a group of figures needs in a network namespace of their own.
	role = "COSI_BENCH_ROLE"

	bareAddress = "192.0.2.1:8090"
)

// pxeMAC is the MAC address of a simulated machine.
func pxeMAC(n int) net.HardwareAddr {
	return net.HardwareAddr{0x52, 0x54, 0, 0xc0, byte(n >> 8), byte(n)}
}

// pxeTimes is what the clients measure, in seconds, and how many bytes each fetched.
type pxeTimes struct {
	Prepare    float64 // from the first packet of DHCP until the last client has its scripts
	Ours, Bare float64 // for the kernel and the initramfs, by HTTP, from either server
	Bytes      int64
	Peak       float64 // memory of the boot server, in MB
}

// roles are what this program is under a name in the environment.
var roles = map[string]func(context.Context) error{"network": pxeNetwork, "bare": bareServer, "clients": pxeSimulated}

// bootServer measures cosi-boot with many clients at once, against an HTTP server that does nothing but give the same files.
func bootServer(ctx context.Context) ([]figure, error) {
	out, err := asRole(ctx, "network", unix.CLONE_NEWNET).Output()
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("takes root, for a network of its own: %w", err)
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	var t pxeTimes
	if err == nil {
		err = json.Unmarshal(out, &t)
	}
	if err != nil {
		return nil, err
	}
	all := float64(pxeClients*t.Bytes) / 1e6
	return []figure{
		{fmt.Sprintf("%d machines at once, from DHCP by TFTP to their scripts", pxeClients), t.Prepare, "s", 0},
		{fmt.Sprintf("and the kernel and initramfs of all, %.0f MB", all), t.Ours, "s", 0},
		{"the same from a bare HTTP server", t.Bare, "s", 0},
		{"boot server, gigabits a second", all * 8 / 1000 / t.Ours, "", 0},
		{"boot server, times as long as the bare server", t.Ours / t.Bare, "", 1.1},
		{"boot server, memory at most", t.Peak, "MB", 200},
	}, nil
}

// asRole is this program as something else, in namespaces of its own. It ends with this one.
func asRole(ctx context.Context, name string, namespaces uintptr) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// bareServer gives the images' files, by the standard library's server.
func bareServer(context.Context) error {
	return http.ListenAndServe(bareAddress, http.FileServer(http.Dir(outputs)))
}

// pxeNetwork has one end of a link, and the servers on it; the clients have the other end.
func pxeNetwork(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "servers"}, PeerName: "machines"}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.AddrAdd(link, own), netlink.LinkSetUp(link), upByName("lo")); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, stop, err := startBootServer(ctx, dir)
	if err != nil {
		return err
	}
	defer stop()
	bare := asRole(ctx, "bare", 0)
	if err := bare.Start(); err != nil {
		return err
	}
	defer func() { bare.Process.Kill(); bare.Wait() }()

	clients := asRole(ctx, "clients", unix.CLONE_NEWNET)
	start, err := clients.StdinPipe()
	if err != nil {
		return err
	}
	result := &bytes.Buffer{}
	clients.Stdout, clients.Stderr = result, os.Stderr
	if err := clients.Start(); err != nil {
		return err
	}
	machines, err := netlink.LinkByName("machines")
	if err == nil {
		err = netlink.LinkSetNsPid(machines, clients.Process.Pid)
	}
	if err != nil {
		return err
	}
	if err := start.Close(); err != nil {
		return err
	}
	if err := clients.Wait(); err != nil {
		return fmt.Errorf("clients: %w\n%s", err, server.out.Tail(20))
	}
	var t pxeTimes
	if err := json.Unmarshal(result.Bytes(), &t); err != nil {
		return err
	}
	if t.Peak, err = peak(server.cmd.Process.Pid); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

func upByName(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// running is a program and what it says.
type running struct {
	cmd *exec.Cmd
	out *qemu.Console
}

// startBootServer runs cosi-boot, which knows every machine by its MAC address.
func startBootServer(ctx context.Context, dir string) (*running, func(), error) {
	stem, err := filepath.Abs(filepath.Join(outputs, image))
	if err != nil {
		return nil, nil, err
	}
	book := &strings.Builder{}
	fmt.Fprintf(book, "machines:\n")
	for n := range pxeClients {
		fmt.Fprintf(book, "  - {mac: %q, image: %s, arguments: [machine=%d], user_data: user-data.yaml}\n", pxeMAC(n), stem, n)
	}
	file := filepath.Join(dir, "machines.yaml")
	if err := errors.Join(os.WriteFile(file, []byte(book.String()), 0o600), os.WriteFile(filepath.Join(dir, "user-data.yaml"), []byte("{}\n"), 0o600)); err != nil {
		return nil, nil, err
	}
	r := &running{out: qemu.NewConsole(nil)}
	r.cmd = exec.CommandContext(ctx, filepath.Join(outputs, "bin/cosi-boot"), "serve", "--interface", "servers", "--machines", file, "--state", dir, "--dhcp", "192.0.2.100-192.0.2.250")
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() { r.cmd.Process.Signal(unix.SIGTERM); r.cmd.Wait() }
	patience, done := context.WithTimeout(ctx, 20*time.Second)
	defer done()
	if _, err := r.out.Wait(patience, 0, regexp.MustCompile(`(?m)^  page `)); err != nil {
		stop()
		return nil, nil, fmt.Errorf("cosi-boot: %w\n%s", err, r.out.Tail(20))
	}
	return r, stop, nil
}

// peak is the most memory that a process has had, in MB.
func peak(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if m == nil {
		return 0, fmt.Errorf("process %d: no VmHWM", pid)
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	return kib * 1024 / 1e6, err
}

// untilClosed waits until the program that has started this one says that all is there.
func untilClosed(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
