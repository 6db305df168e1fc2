package linkevents

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
	"github.com/cosi-os/cosi/plugins/internal/sysfs"
)

// world is what was looked up at one time. Addresses and routes are kept with their protocols, which say who has made them.
type world struct {
	links     map[int]link // by index
	addresses map[address]int
	routes    map[route]int
}

type link struct {
	name, kind string // kind is the driver's word for links that it makes: "vlan", "veth"
	ours       bool
	on         bool // it is not switched off
	carrier    bool
	ups, downs uint32 // how often the carrier has come and gone
	speed      uint64 // in Mbit/s; 0 is not known
}

type address struct {
	link   int
	prefix netip.Prefix
}

// route is a route, or one of several ways that it goes.
type route struct {
	link          int // 0: it leads nowhere
	destination   netip.Prefix
	gateway       netip.Addr // not valid: on the link
	metric, table int
}

// kernel is the network of the network namespace that the plugin runs in.
type kernel struct {
	sys string // /sys

	handle *netlink.Handle // nil before the first look
	socket *nl.SocketHandle
}

// look reads everything.
func (k *kernel) look() (w world, err error) {
	if err := k.open(); err != nil {
		return w, fmt.Errorf("netlink: %w", err)
	}
	links, err := rtnl.Whole(k.links)
	if err != nil {
		return w, fmt.Errorf("read links: %w", err)
	}
	addresses, err := rtnl.Whole(func() ([]rtnl.Address, error) { return rtnl.Addresses(k.socket) })
	if err != nil {
		return w, fmt.Errorf("read addresses: %w", err)
	}
	w = world{map[int]link{}, map[address]int{}, map[route]int{}}
	for _, l := range links {
		w.links[l.index] = l.link
	}
	for _, a := range addresses {
		w.addresses[address{a.Link, a.Prefix}] = a.Protocol
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		// Of all tables, which the library takes no table to mean.
		routes, err := rtnl.Whole(func() ([]netlink.Route, error) {
			return k.handle.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return w, fmt.Errorf("read routes: %w", err)
		}
		for _, r := range routes {
			for _, one := range ways(r, family) {
				w.routes[one] = int(r.Protocol)
			}
		}
	}
	return w, nil
}

func (k *kernel) open() (err error) {
	if k.handle != nil {
		return nil
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	if k.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		socket.Close()
		return err
	}
	k.socket = &nl.SocketHandle{Socket: socket}
	return nil
}

// indexed is a link with its index.
type indexed struct {
	index int
	link
}

// links speaks netlink itself: the library leaves out how often a carrier has come and gone.
func (k *kernel) links() ([]indexed, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: k.socket}
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	var all []indexed
	for _, m := range messages {
		if l, ok := parseLink(m); ok {
			// What has no carrier has no speed, and a link that has gone meanwhile has no file.
			l.speed = sysfs.Attributes{Dir: filepath.Join(k.sys, "class", "net", l.name)}.Number("speed")
			all = append(all, l)
		}
	}
	return all, err
}

// parseLink reads a struct ifinfomsg and its attributes.
func parseLink(m []byte) (indexed, bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return indexed{}, false
	}
	header := nl.DeserializeIfInfomsg(m)
	attributes, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
	if err != nil {
		return indexed{}, false
	}
	l, group := indexed{index: int(header.Index), link: link{on: header.Flags&unix.IFF_UP != 0}}, uint32(0)
	for _, at := range attributes {
		switch {
		case at.Attr.Type == unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(at.Value)
		case at.Attr.Type == unix.IFLA_LINKINFO:
			l.kind = kindOf(at.Value)
		case at.Attr.Type == unix.IFLA_CARRIER && len(at.Value) == 1:
			l.carrier = at.Value[0] != 0
		case len(at.Value) != 4:
		case at.Attr.Type == unix.IFLA_GROUP:
			group = binary.NativeEndian.Uint32(at.Value)
		case at.Attr.Type == unix.IFLA_CARRIER_UP_COUNT:
			l.ups = binary.NativeEndian.Uint32(at.Value)
		case at.Attr.Type == unix.IFLA_CARRIER_DOWN_COUNT:
			l.downs = binary.NativeEndian.Uint32(at.Value)
		}
	}
	l.ours = l.kind == "vlan" && group == rtnl.GroupVLAN
	return l, l.name != ""
}

func kindOf(info []byte) string {
	attributes, err := nl.ParseRouteAttr(info)
	if err != nil {
		return ""
	}
	for _, at := range attributes {
		if at.Attr.Type == unix.IFLA_INFO_KIND {
			return unix.ByteSliceToString(at.Value)
		}
	}
	return ""
}

// ways are the ways that r goes. The table of what is the node's own and the routes of each link's multicast follow from addresses.
func ways(r netlink.Route, family int) []route {
	if r.Table == unix.RT_TABLE_LOCAL {
		return nil
	}
	one := route{link: r.LinkIndex, destination: rtnl.Prefix(r.Dst, family), gateway: unmapped(r.Gw), metric: r.Priority, table: r.Table}
	if len(r.MultiPath) == 0 {
		return []route{one}
	}
	var all []route
	for _, hop := range r.MultiPath {
		one.link, one.gateway = hop.LinkIndex, unmapped(hop.Gw)
		all = append(all, one)
	}
	return all
}

func unmapped(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
