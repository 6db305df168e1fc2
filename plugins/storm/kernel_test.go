package storm

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// In a network namespace of its own an address and a route come, and go again.
func TestAnAddressAndARouteComeAndGo(t *testing.T) {
	var n *network
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n, err = newNetwork() // its socket stays there
		}
		done <- err
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("this user may make no network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
	defer n.handle.Close()
	if err := n.handle.LinkSetUp(n.link); err != nil {
		t.Fatal(err)
	}
	for change := range 8 {
		if err := n.Change(); err != nil {
			t.Fatal(err)
		}
		addresses, err := n.handle.AddrList(n.link, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		routes, err := n.handle.RouteList(n.link, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		address, route := false, len(routes) == 1 && routes[0].Dst.String() == "198.51.100.128/25"
		for _, a := range addresses {
			address = address || a.IPNet.String() == "203.0.113.7/32"
		}
		if wanted := change%4 < 3; address != wanted || route != (change%4 == 1) {
			t.Errorf("after change %d: %v and %v", change, addresses, routes)
		}
	}
}

// A processor is taken for as long as is asked for. Needs the right to eBPF.
func TestAProcessorIsLockedUp(t *testing.T) {
	const d = 20 * time.Millisecond
	began := time.Now()
	err := lockUp(d)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("the right to eBPF is needed: %v", err)
	}
	if took := time.Since(began); err != nil || took < d {
		t.Errorf("lockUp(%s) = %v after %s", d, err, took)
	}
}
