package network

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// source is the word in a status for where an address or route comes from.
func source(protocol int) string {
	switch protocol {
	case rtnl.ProtocolStatic:
		return "static"
	case rtnl.ProtocolCmdline:
		return "cmdline"
	case rtnl.ProtocolDHCP, unix.RTPROT_DHCP:
		return "dhcp"
	}
	return "kernel"
}

// kernel is the network of the network namespace that it was opened in.
type kernel struct {
	handle *netlink.Handle
	socket *nl.SocketHandle
	sys    string // where sysfs is
	// cables are the kernel's words for links that count as physical beside those that have none. Tests name veth here.
	cables  map[string]bool
	drivers map[int]string // by index: it does not change
	// writes counts the changes that were asked for.
	writes int
}

// world is all that was read at one time.
type world struct {
	links     []link
	addresses []address
	routes    []route
}

func openKernel() (*kernel, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &kernel{handle: handle, socket: &nl.SocketHandle{Socket: socket}, sys: "/sys", drivers: map[int]string{}}, nil
}

func (k *kernel) close() {
	k.handle.Close()
	k.socket.Close()
}

// read reads everything.
func (k *kernel) read() (w world, err error) {
	if w.links, err = rtnl.Whole(k.readLinks); err != nil {
		return w, fmt.Errorf("read links: %w", err)
	}
	if w.addresses, err = rtnl.Whole(k.readAddresses); err != nil {
		return w, fmt.Errorf("read addresses: %w", err)
	}
	if w.routes, err = rtnl.Whole(k.readRoutes); err != nil {
		return w, fmt.Errorf("read routes: %w", err)
	}
	return w, nil
}

func (k *kernel) readLinks() ([]link, error) {
	found, err := k.handle.LinkList()
	if err != nil {
		return nil, err
	}
	var links []link
	for _, f := range found {
		links = append(links, k.link(f))
	}
	return links, nil
}

func (k *kernel) link(f netlink.Link) link {
	a := f.Attrs()
	l := link{
		index: a.Index, name: a.Name, kind: f.Type(), mac: a.HardwareAddr.String(),
		up: a.Flags&net.FlagUp != 0, carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, running: a.RawFlags&unix.IFF_RUNNING != 0,
		mtu: a.MTU, group: a.Group,
	}
	switch {
	case a.Flags&net.FlagLoopback != 0:
		l.kind, l.mac = kindLoopback, ""
	case a.EncapType == "ether" && (l.kind == "device" || k.cables[l.kind]):
		l.kind, l.driver = kindPhysical, k.driver(l)
	}
	if v, ok := f.(*netlink.Vlan); ok {
		l.parent, l.vlan = a.ParentIndex, v.VlanId
	}
	return l
}

func (k *kernel) driver(l link) string {
	driver, ok := k.drivers[l.index]
	if !ok {
		if target, err := os.Readlink(filepath.Join(k.sys, "class/net", l.name, "device/driver")); err == nil {
			driver = filepath.Base(target)
		}
		k.drivers[l.index] = driver
	}
	return driver
}

func attributes(index int) *netlink.Device {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func (k *kernel) raise(l link) error {
	k.writes++
	return k.handle.LinkSetUp(attributes(l.index))
}

func (k *kernel) setMTU(l link, mtu int) error {
	k.writes++
	return k.handle.LinkSetMTU(attributes(l.index), mtu)
}

// addVLAN makes a VLAN link, marked as ours.
func (k *kernel) addVLAN(name string, parent, id int) error {
	k.writes++
	a := netlink.NewLinkAttrs()
	a.Name, a.ParentIndex, a.Group = name, parent, rtnl.GroupVLAN
	return k.handle.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
}

func (k *kernel) deleteLink(l link) error {
	k.writes++
	return k.handle.LinkDel(attributes(l.index))
}
