package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// address is an address as the kernel has it.
type address struct {
	link     int
	prefix   netip.Prefix
	protocol int
	// valid is for how many more seconds; forever is no end.
	valid     uint32
	tentative bool // its uniqueness is being checked (IPv6)
	duplicate bool // it was found not to be unique
}

const (
	forever  = 0xffffffff
	ifaProto = 11 // IFA_PROTO, linux/if_addr.h, since Linux 5.18
)

// readAddresses and setAddress speak netlink themselves: the library leaves out IFA_PROTO.
func (k *kernel) readAddresses() ([]address, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: k.socket}
	request.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	var all []address
	for _, m := range messages {
		if a, ok := parseAddressMessage(m); ok {
			all = append(all, a)
		}
	}
	return all, err
}

func parseAddressMessage(m []byte) (address, bool) {
	if len(m) < unix.SizeofIfAddrmsg {
		return address{}, false
	}
	header := nl.DeserializeIfAddrmsg(m)
	attributes, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, false
	}
	a := address{link: int(header.Index), valid: forever}
	flags := uint32(header.Flags)
	var ip netip.Addr
	for _, at := range attributes {
		switch {
		case at.Attr.Type == unix.IFA_LOCAL, at.Attr.Type == unix.IFA_ADDRESS && !ip.IsValid():
			ip, _ = netip.AddrFromSlice(at.Value) // IFA_ADDRESS is the peer's where there is an IFA_LOCAL
		case at.Attr.Type == unix.IFA_FLAGS && len(at.Value) == 4:
			flags = binary.NativeEndian.Uint32(at.Value)
		case at.Attr.Type == unix.IFA_CACHEINFO && len(at.Value) >= unix.SizeofIfaCacheinfo:
			a.valid = nl.DeserializeIfaCacheInfo(at.Value).Valid
		case at.Attr.Type == ifaProto && len(at.Value) == 1:
			a.protocol = int(at.Value[0])
		}
	}
	a.prefix = netip.PrefixFrom(ip, int(header.Prefixlen))
	a.tentative = flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	a.duplicate = flags&unix.IFA_F_DADFAILED != 0
	return a, a.prefix.IsValid()
}

// setAddress adds an address, or makes one that is there as a says.
func (k *kernel) setAddress(a address) error {
	return k.changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a)
}

func (k *kernel) deleteAddress(a address) error { return k.changeAddress(unix.RTM_DELADDR, 0, a) }

func (k *kernel) changeAddress(typ, flags int, a address) error {
	k.writes++
	ip := a.prefix.Addr()
	family := unix.AF_INET
	if ip.Is6() {
		family = unix.AF_INET6
	}
	header := nl.NewIfAddrmsg(family)
	header.Index = uint32(a.link)
	header.Prefixlen = uint8(a.prefix.Bits())

	request := nl.NewNetlinkRequest(typ, flags|unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: k.socket}
	request.AddData(header)
	request.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip.AsSlice()))
	request.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip.AsSlice()))
	if typ == unix.RTM_NEWADDR {
		if broadcast, ok := broadcastOf(a.prefix); ok {
			request.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast.AsSlice()))
		}
		lifetime := &nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Prefered: a.valid, Valid: a.valid}}
		request.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetime.Serialize()))
		request.AddData(nl.NewRtAttr(ifaProto, nl.Uint8Attr(uint8(a.protocol))))
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// broadcastOf returns the last address of an IPv4 prefix that is long enough to have one.
func broadcastOf(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := p.Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b), true
}
