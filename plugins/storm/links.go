package storm

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is the loopback link, to which an address and a route come, and go again. Both are of blocks that are for documentation.
type network struct {
	handle  *netlink.Handle
	address *netlink.Addr
	route   *netlink.Route
	link    netlink.Link
	changes uint64
}

func newNetwork() (*network, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	lo, err := handle.LinkByName("lo")
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("lo: %w", err)
	}
	return &network{
		handle: handle, link: lo,
		address: &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(203, 0, 113, 7), Mask: net.CIDRMask(32, 32)}},
		route: &netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(198, 51, 100, 128), Mask: net.CIDRMask(25, 32)}, Protocol: unix.RTPROT_STATIC,
		},
	}, nil
}

// Change has the address come, the route come, the route go, or the address go: the next of them.
func (n *network) Change() error {
	var what string
	var err error
	switch n.changes % 4 {
	case 0:
		what, err = "add an address", n.handle.AddrAdd(n.link, n.address)
	case 1:
		what, err = "add a route", n.handle.RouteAdd(n.route)
	case 2:
		what, err = "remove a route", n.handle.RouteDel(n.route)
	case 3:
		what, err = "remove an address", n.handle.AddrDel(n.link, n.address)
	}
	if err != nil {
		return fmt.Errorf("lo: %s: %w", what, err)
	}
	n.changes++
	return nil
}
