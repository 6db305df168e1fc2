package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lease is what a server granted. Nothing in it is taken from the server unchecked.
type Lease struct {
	Address netip.Prefix
	// Routes hold the default route too. A route without a gateway is on the link.
	Routes  []Route
	Servers []netip.Addr
	// Search holds host names only: they are written to a file with a syntax.
	Search []string
	// MTU is 0 if the server names none, or one that no IPv4 link can have.
	MTU      int
	Server   netip.Addr
	Obtained time.Time
	// Renew and Rebind are T1 and T2 of RFC 2131. All three are zero if the lease never ends.
	Renew, Rebind, Expires time.Time

	// hop is the neighbour that the answer came from: the server or its relay. It saves asking for it when the lease is renewed.
	hop net.HardwareAddr
}

// Route leads to Destination.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

// Gateway is the gateway of the default route, or the zero Addr.
func (l *Lease) Gateway() netip.Addr {
	for _, r := range l.Routes {
		if r.Destination.Bits() == 0 {
			return r.Gateway
		}
	}
	return netip.Addr{}
}

// expired reports whether the lease has ended at now.
func (l *Lease) expired(now time.Time) bool { return !l.Expires.IsZero() && !now.Before(l.Expires) }

const (
	infinite = 0xffffffff * time.Second
	// minMTU is what every IPv4 host takes (RFC 791): a server that asks for less is broken, or wants to slow us down.
	minMTU, maxMTU = 576, 65535
	maxSearch      = 6
	maxRoutes      = 32
)

// parseLease reads an ACK (or an offer: it must be as good) that came at now.
func parseLease(m *dhcpv4.DHCPv4, now time.Time) (*Lease, error) {
	address, err := leaseAddress(m)
	if err != nil {
		return nil, err
	}
	server, ok := unicast(m.ServerIdentifier())
	if !ok {
		return nil, errors.New("no server identifier")
	}
	l := &Lease{
		Address:  address,
		Routes:   routes(m),
		Servers:  servers(m),
		Search:   search(m),
		Server:   server,
		Obtained: now,
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && mtu >= minMTU {
		l.MTU = int(mtu)
	}
	return l, l.setTimes(m)
}

func (l *Lease) setTimes(m *dhcpv4.DHCPv4) error {
	lifetime := m.IPAddressLeaseTime(0)
	switch {
	case lifetime < time.Second:
		return errors.New("no lease time")
	case lifetime >= infinite:
		return nil
	}
	t1, t2 := m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0)
	if t2 <= 0 || t2 >= lifetime {
		t2 = lifetime * 7 / 8
	}
	if t1 <= 0 || t1 >= t2 {
		t1 = min(lifetime/2, t2)
	}
	l.Renew, l.Rebind, l.Expires = l.Obtained.Add(t1), l.Obtained.Add(t2), l.Obtained.Add(lifetime)
	return nil
}

func leaseAddress(m *dhcpv4.DHCPv4) (netip.Prefix, error) {
	address, ok := unicast(m.YourIPAddr)
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%v is not an address for a host", m.YourIPAddr)
	}
	mask := m.SubnetMask()
	if mask == nil {
		mask = m.YourIPAddr.DefaultMask()
	}
	ones, bits := mask.Size()
	if bits != 32 || ones == 0 {
		return netip.Prefix{}, fmt.Errorf("%v is not a subnet mask", net.IP(mask))
	}
	return netip.PrefixFrom(address, ones), nil
}

// routes follows RFC 3442: with classless routes the router option counts for nothing.
func routes(m *dhcpv4.DHCPv4) []Route {
	var all []Route
	for _, r := range m.ClasslessStaticRoute() {
		if r.Dest == nil || len(all) == maxRoutes {
			continue
		}
		destination, ok := netip.AddrFromSlice(r.Dest.IP.To4())
		ones, bits := r.Dest.Mask.Size()
		if !ok || bits != 32 {
			continue
		}
		gateway, _ := unicast(r.Router)
		if !gateway.IsValid() && !r.Router.IsUnspecified() {
			continue
		}
		all = append(all, Route{netip.PrefixFrom(destination, ones).Masked(), gateway})
	}
	if m.Options.Has(dhcpv4.OptionClasslessStaticRoute) {
		return all
	}
	for _, router := range m.Router() {
		if gateway, ok := unicast(router); ok {
			return []Route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway}}
		}
	}
	return nil
}

func servers(m *dhcpv4.DHCPv4) []netip.Addr {
	var all []netip.Addr
	for _, ip := range m.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() && !a.IsMulticast() && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// search takes the domain name for the search list if the server sends no list.
func search(m *dhcpv4.DHCPv4) []string {
	var domains, all []string
	if labels := m.DomainSearch(); labels != nil {
		domains = labels.Labels
	}
	if len(domains) == 0 {
		domains = []string{m.DomainName()}
	}
	for _, domain := range domains {
		domain = strings.TrimRight(domain, ".\x00")
		if HostName(domain) && len(all) < maxSearch && !slices.Contains(all, domain) {
			all = append(all, domain)
		}
	}
	return all
}

// HostName reports whether s is a host name: letters, digits, hyphens, underscores and dots, none of its labels empty or too long.
func HostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		for _, r := range label {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return false
			}
		}
	}
	return true
}

// unicast returns ip if a host may have it.
func unicast(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.As4()[0] == 0 || a.As4()[0] >= 240 {
		return netip.Addr{}, false
	}
	return a, true
}
