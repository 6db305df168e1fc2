package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

func ack(more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: testMAC, Options: make(dhcpv4.Options)}
	for _, modify := range append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithLeaseTime(3600),
	}, more...) {
		modify(m)
	}
	return m
}

func seconds(code dhcpv4.GenericOptionCode, n byte) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(code, []byte{0, 0, n, 0})
}

func TestLeaseTimes(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, test := range []struct {
		name           string
		message        *dhcpv4.DHCPv4
		t1, t2, expiry time.Duration
	}{
		{"defaults are 1/2 and 7/8", ack(), 1800 * time.Second, 3150 * time.Second, time.Hour},
		{"the server's own", ack(seconds(58, 1), seconds(59, 2)), 256 * time.Second, 512 * time.Second, time.Hour},
		{"T2 after the end", ack(seconds(59, 200)), 1800 * time.Second, 3150 * time.Second, time.Hour},
		{"T1 after T2", ack(seconds(58, 3), seconds(59, 2)), 512 * time.Second, 512 * time.Second, time.Hour},
	} {
		l, err := parseLease(test.message, now)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		if l.Renew.Sub(now) != test.t1 || l.Rebind.Sub(now) != test.t2 || l.Expires.Sub(now) != test.expiry {
			t.Errorf("%s: %v, %v, %v; want %v, %v, %v", test.name, l.Renew.Sub(now), l.Rebind.Sub(now), l.Expires.Sub(now), test.t1, test.t2, test.expiry)
		}
	}
	l, err := parseLease(ack(dhcpv4.WithLeaseTime(0xffffffff)), now)
	if err != nil || !l.Expires.IsZero() || l.expired(now.Add(1e6*time.Hour)) {
		t.Errorf("endless lease = %+v, %v; want no end", l, err)
	}
}

func TestLeaseRefusesNonsense(t *testing.T) {
	for name, m := range map[string]*dhcpv4.DHCPv4{
		"no address":     ack(dhcpv4.WithYourIP(net.IPv4zero)),
		"multicast":      ack(dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1))),
		"loopback":       ack(dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))),
		"broadcast":      ack(dhcpv4.WithYourIP(net.IPv4bcast)),
		"empty mask":     ack(dhcpv4.WithNetmask(net.IPMask{0, 0, 0, 0})),
		"mask with hole": ack(dhcpv4.WithNetmask(net.IPMask{255, 0, 255, 0})),
		"no server":      ack(dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier)),
		"no lease time":  ack(dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime)),
	} {
		if l, err := parseLease(m, time.Now()); err == nil {
			t.Errorf("%s: %+v; want an error", name, l)
		}
	}
}

func TestClasslessRoutesReplaceTheRouter(t *testing.T) {
	classless := dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 1, 2, 3).To4(), Mask: net.CIDRMask(8, 32)}, Router: net.IPv4(192, 0, 2, 2).To4()},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(192, 0, 2, 9).To4(), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero.To4()},
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(11, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, Router: net.IPv4(224, 0, 0, 1).To4()},
	))
	router := dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1)))
	l, err := parseLease(ack(router, classless), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	want := []Route{
		{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddr("192.0.2.2")},
		{netip.MustParsePrefix("192.0.2.9/32"), netip.Addr{}},
	}
	if !slices.Equal(l.Routes, want) {
		t.Errorf("routes = %v; want %v", l.Routes, want)
	}
	if l, _ = parseLease(ack(router), time.Now()); l.Gateway() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("gateway = %v; want the router", l.Gateway())
	}
}

func TestSearchHoldsHostNamesOnly(t *testing.T) {
	list := dhcpv4.WithOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"example.org", "a b.example", "x\nnameserver 6.6.6.6", "example.org", "lab_1.example"}}))
	name := dhcpv4.WithOption(dhcpv4.OptDomainName("example.net"))
	for _, test := range []struct {
		name string
		m    *dhcpv4.DHCPv4
		want []string
	}{
		{"list before name", ack(list, name), []string{"example.org", "lab_1.example"}},
		{"name alone", ack(name), []string{"example.net"}},
		{"none", ack(), nil},
		{"bad name", ack(dhcpv4.WithOption(dhcpv4.OptDomainName("evil\nnameserver 6.6.6.6"))), nil},
	} {
		if l, err := parseLease(test.m, time.Now()); err != nil || !slices.Equal(l.Search, test.want) {
			t.Errorf("%s: search = %q, %v; want %q", test.name, l.Search, err, test.want)
		}
	}
}

func TestMTUBelowTheLeastIsIgnored(t *testing.T) {
	for sent, want := range map[uint16]int{68: 0, 575: 0, 576: 576, 1400: 1400, 9000: 9000} {
		l, err := parseLease(ack(dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{byte(sent >> 8), byte(sent)})), time.Now())
		if err != nil || l.MTU != want {
			t.Errorf("MTU %d gives %d, %v; want %d", sent, l.MTU, err, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(ack().ToBytes())
	f.Add(ack(dhcpv4.WithOption(dhcpv4.OptDomainName("x")), dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
		&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, Router: net.IPv4zero.To4()}))).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parseAnswer(b, nil, testMAC, time.Unix(0, 0))
		if err != nil || a.lease == nil {
			return
		}
		l := a.lease
		if !l.Address.IsValid() || l.Address.Bits() == 0 || !l.Server.IsValid() || len(l.Search) > maxSearch || len(l.Routes) > maxRoutes {
			t.Errorf("lease %+v", l)
		}
		for _, s := range l.Search {
			if !HostName(s) {
				t.Errorf("search domain %q", s)
			}
		}
		for _, r := range l.Routes {
			if !r.Destination.IsValid() {
				t.Errorf("route %v", r)
			}
		}
		if !l.Expires.IsZero() && (l.Renew.After(l.Rebind) || !l.Rebind.Before(l.Expires)) {
			t.Errorf("times %v, %v, %v", l.Renew, l.Rebind, l.Expires)
		}
	})
}
