package boot

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Neighbours returns a function that reads the kernel's table of an interface: which MAC address answers for an address of its link. It does not know
// those behind a router, nor this machine's own.
func Neighbours(link *net.Interface, log func(format string, args ...any)) func(netip.Addr) (net.HardwareAddr, bool) {
	return func(address netip.Addr) (net.HardwareAddr, bool) {
		all, err := netlink.NeighList(link.Index, netlink.FAMILY_V4)
		if err != nil {
			log("%v", fmt.Errorf("neighbours of %s: %w", link.Name, err))
			return nil, false
		}
		for _, n := range all {
			if a, ok := netip.AddrFromSlice(n.IP.To4()); ok && a == address && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, true
			}
		}
		return nil, false
	}
}
