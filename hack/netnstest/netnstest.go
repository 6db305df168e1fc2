// Package netnstest runs the tests of a package in a network namespace of their own: nothing that they do is seen outside. A TestMain calls it.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside says that the tests run in a namespace of their own, and whyNot why they do not.
const (
	inside = "COSI_TEST_NETNS"
	whyNot = "COSI_TEST_NO_NETNS"
)

// Main runs the tests, in a namespace if this user may make one, and exits. In the namespace lo is up. A fuzz test's workers stay where they are.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := loopback(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if os.Getenv(inside) != "" || os.Getenv(whyNot) != "" || slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(m.Run())
	}
	err := again(inside+"=1", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
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

// Want skips a test that has no namespace to work in.
func Want(t testing.TB) {
	t.Helper()
	if why := os.Getenv(whyNot); why != "" {
		t.Skipf("wants %s", why)
	}
}

func again(env string, attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0], cmd.Env, cmd.SysProcAttr = os.Args[0], append(os.Environ(), env), attr
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return nil
}
