// Package nettest runs the boot server's tests in a network namespace of their own, with a link that packets really go over.
package nettest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace says that the tests run in a namespace of their own, and whyNot why they do not.
const (
	inNamespace = "COSI_BOOT_TEST_NETNS"
	whyNot      = "COSI_BOOT_TEST_NO_NETNS"
)

// Main runs the tests again in a network namespace: a TestMain calls it. Nothing they do is seen outside.
func Main(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		if err := up("lo"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if os.Getenv(inNamespace) != "" || os.Getenv(whyNot) != "" || slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(m.Run())
	}
	err := again(inNamespace+"=1", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	if errors.Is(err, unix.EPERM) {
		err = again(whyNot+"=a network namespace: "+err.Error(), nil)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func again(env string, attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0], cmd.Env, cmd.SysProcAttr = os.Args[0], append(os.Environ(), env), attr
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Address is the server's on its end of a link.
var Address = netip.MustParsePrefix("192.0.2.1/24")

// Link makes a link and returns its ends: the server's, which has Address, and the clients', which has none. It is gone with the test, which is skipped
// where there is no namespace to make it in.
func Link(t testing.TB) (server, clients *net.Interface) {
	t.Helper()
	if why := os.Getenv(whyNot); why != "" {
		t.Skipf("wants %s", why)
	}
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "clients"}
	pair.Name = "server"
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(pair) })
	if err := netlink.AddrAdd(pair, &netlink.Addr{IPNet: &net.IPNet{IP: Address.Addr().AsSlice(), Mask: net.CIDRMask(Address.Bits(), 32)}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server", "clients"} {
		if err := up(name); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if server, err = net.InterfaceByName("server"); err == nil {
		clients, err = net.InterfaceByName("clients")
	}
	if err != nil {
		t.Fatal(err)
	}
	return server, clients
}
