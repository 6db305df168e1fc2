// Package rtnl is what plugins share that read the node's network from the kernel (rtnetlink(7)): the marks of what plugin network has
// made, and addresses with theirs, which the netlink library leaves out.
package rtnl

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What the kernel keeps with a route (its protocol), an address (its protocol, since Linux 5.18) or a link (its group) tells what plugin
// network has made, and whose wish it was.
const (
	ProtocolStatic  = 197 // a resource's
	ProtocolCmdline = 198 // the kernel arguments'
	ProtocolDHCP    = 199 // a lease's; not RTPROT_DHCP, which other DHCP clients use
	GroupVLAN       = 197
)

// Ours reports whether plugin network has made the route or the address with a protocol.
func Ours(protocol int) bool { return protocol >= ProtocolStatic && protocol <= ProtocolDHCP }

// Address is an address as the kernel has it.
type Address struct {
	Link     int // its index
	Prefix   netip.Prefix
	Protocol int
	// Valid is for how many more seconds; Forever is no end.
	Valid     uint32
	Tentative bool // its uniqueness is being checked (IPv6)
	Duplicate bool // it was found not to be unique
}

// Forever is the Valid of an address that does not expire.
const Forever = 0xffffffff

// AddressProtocol is the attribute with the protocol of an address: IFA_PROTO, linux/if_addr.h, since Linux 5.18.
const AddressProtocol = 11

// Addresses reads all addresses.
func Addresses(socket *nl.SocketHandle) ([]Address, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: socket}
	request.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	var all []Address
	for _, m := range messages {
		if a, ok := parseAddress(m); ok {
			all = append(all, a)
		}
	}
	return all, err
}

func parseAddress(m []byte) (Address, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return Address{}, false
	}
	header := nl.DeserializeIfAddrmsg(m)
	attributes, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
	if err != nil {
		return Address{}, false
	}
	a := Address{Link: int(header.Index), Valid: Forever}
	flags := uint32(header.Flags)
	var ip netip.Addr
	for _, at := range attributes {
		switch {
		case at.Attr.Type == unix.IFA_LOCAL, at.Attr.Type == unix.IFA_ADDRESS && !ip.IsValid():
			ip, _ = netip.AddrFromSlice(at.Value) // IFA_ADDRESS is the peer's where there is an IFA_LOCAL
		case at.Attr.Type == unix.IFA_FLAGS && len(at.Value) == 4:
			flags = binary.NativeEndian.Uint32(at.Value)
		case at.Attr.Type == unix.IFA_CACHEINFO && len(at.Value) >= unix.SizeofIfaCacheinfo:
			a.Valid = nl.DeserializeIfaCacheInfo(at.Value).Valid
		case at.Attr.Type == AddressProtocol && len(at.Value) == 1:
			a.Protocol = int(at.Value[0])
		}
	}
	a.Prefix = netip.PrefixFrom(ip, int(header.Prefixlen))
	a.Tentative = flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	a.Duplicate = flags&unix.IFA_F_DADFAILED != 0
	return a, a.Prefix.IsValid()
}

// Prefix is the destination of a route of a family as the library has it: a default route may have none.
func Prefix(destination *net.IPNet, family int) netip.Prefix {
	if destination != nil {
		ones, _ := destination.Mask.Size()
		ip, _ := netip.AddrFromSlice(destination.IP)
		if family == unix.AF_INET {
			ip = ip.Unmap()
		}
		return netip.PrefixFrom(ip, ones)
	}
	if family == unix.AF_INET {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Whole repeats a dump that something changed under. A network that never holds still ends in the error.
func Whole[T any](read func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = read(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
