package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
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

const forever = rtnl.Forever

func (k *kernel) readAddresses() ([]address, error) {
	found, err := rtnl.Addresses(k.socket)
	var all []address
	for _, a := range found {
		all = append(all, address{link: a.Link, prefix: a.Prefix, protocol: a.Protocol, valid: a.Valid, tentative: a.Tentative, duplicate: a.Duplicate})
	}
	return all, err
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
		request.AddData(nl.NewRtAttr(rtnl.AddressProtocol, nl.Uint8Attr(uint8(a.protocol))))
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
