// Package nettest gives the boot server's tests, which netnstest runs in a network namespace, a link that packets really go over.
package nettest

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/cosi-os/cosi/hack/netnstest"
)

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
	netnstest.Want(t)
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
