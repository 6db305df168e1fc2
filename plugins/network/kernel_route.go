package network

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// route is a route of the main table.
type route struct {
	link        int
	destination netip.Prefix
	gateway     netip.Addr // not valid: on the link
	metric      int
	protocol    int
}

// metricIPv6 is what the kernel makes of 0 for IPv6 (IP6_RT_PRIO_USER).
const metricIPv6 = 1024

// routeKey is what the kernel holds to be one route.
type routeKey struct {
	destination netip.Prefix
	metric      int
}

func (r route) key() routeKey { return routeKey{r.destination, r.metric} }

// defaultFor is the destination of the default route of the family of gateway.
func defaultFor(gateway netip.Addr) netip.Prefix {
	if gateway.Is6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func (k *kernel) readRoutes() ([]route, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
	var all []route
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := k.handle.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			all = append(all, routeOf(f, family))
		}
	}
	return all, nil
}

func routeOf(f netlink.Route, family int) route {
	r := route{link: f.LinkIndex, metric: f.Priority, protocol: int(f.Protocol)}
	if len(f.MultiPath) > 0 {
		r.link, f.Gw = f.MultiPath[0].LinkIndex, f.MultiPath[0].Gw
	}
	gateway, _ := netip.AddrFromSlice(f.Gw)
	r.gateway, r.destination = gateway.Unmap(), rtnl.Prefix(f.Dst, family)
	return r
}

// setRoute adds a route; replace says that one of ours with its key is there. A gateway that is in none of the link's networks is
// taken to be on the link, as clouds with /32 addresses want it.
func (k *kernel) setRoute(r route, onLink, replace bool) error {
	k.writes++
	n := r.netlink()
	if onLink {
		n.Flags = unix.RTNH_F_ONLINK
	}
	if replace {
		return k.handle.RouteReplace(n)
	}
	return k.handle.RouteAdd(n)
}

func (k *kernel) deleteRoute(r route) error {
	k.writes++
	return k.handle.RouteDel(r.netlink())
}

func (r route) netlink() *netlink.Route {
	n := &netlink.Route{
		LinkIndex: r.link,
		Dst:       &net.IPNet{IP: r.destination.Addr().AsSlice(), Mask: net.CIDRMask(r.destination.Bits(), r.destination.Addr().BitLen())},
		Priority:  r.metric,
		Protocol:  netlink.RouteProtocol(r.protocol),
		Table:     unix.RT_TABLE_MAIN,
	}
	if r.gateway.IsValid() {
		n.Gw = r.gateway.AsSlice()
	} else if r.destination.Addr().Is4() {
		n.Scope = netlink.SCOPE_LINK
	}
	return n
}
