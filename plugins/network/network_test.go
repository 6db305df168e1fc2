package network

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
	"github.com/cosi-os/cosi/sdk"
)

var (
	leasedPrefix = netip.MustParsePrefix("192.0.2.10/24")
	everyDHCP    = []sdk.Resource[*networkpb.DHCPClient]{resource(typeDHCPClient, "default", &networkpb.DHCPClient{Link: allPhysical()})}
)

func TestDeclarationCoversTheController(t *testing.T) {
	d, err := declaration.Parse(Plugin().Declaration)
	must(t, err)
	c := Plugin().Controllers[0]
	for _, typ := range c.Inputs {
		if !d.Finalizes(typ) {
			t.Errorf("%s is no input with finalizers", typ)
		}
	}
	for _, typ := range c.Outputs {
		if !d.Writes(typ) {
			t.Errorf("%s is no output", typ)
		}
	}
}

func leaseOf(p *pass) *networkpb.DHCPClientStatus_Lease {
	if s := status[*networkpb.DHCPClientStatus](p, typeDHCPClientStatus, "default"); s != nil && s.Ready {
		return s.Leases[0]
	}
	return nil
}

func hasLease(p *pass) bool { return leaseOf(p) != nil }

func TestDHCPConfiguresTheLink(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	n, _ := newNode(t, "")
	n.in.clients = everyDHCP
	begin := time.Now()
	n.until("a lease", hasLease)
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("a lease after %v; the first DISCOVER was lost or late", took)
	}
	if got := s.messages(); got[0] != dhcpv4.MessageTypeDiscover || !slices.Contains(got, dhcpv4.MessageTypeRequest) {
		t.Errorf("the server saw %v; want a DISCOVER, then a REQUEST", got)
	}
	n.quiet()
	p := n.pass()
	a, ok := n.addresses("eth0")[leasedPrefix]
	if !ok || a.protocol != rtnl.ProtocolDHCP || a.valid > 3600 || a.valid < 3500 {
		t.Errorf("address = %+v, %v; want it marked and valid for an hour", a, ok)
	}
	lease := leaseOf(p)
	if lease.LinkName != "eth0" || lease.Address != "192.0.2.10/24" || lease.Gateway != "192.0.2.1" || lease.Server != "192.0.2.1" {
		t.Errorf("lease = %v", lease)
	}
	if s := status[*networkpb.AddressStatus](p, typeAddressStatus, "eth0-192.0.2.10"); s.GetSource() != "dhcp" || !s.GetReady() {
		t.Errorf("AddressStatus = %v; want one with the source dhcp", s)
	}
	if s := status[*networkpb.LinkStatus](p, typeLinkStatus, "eth0"); s.GetMtu() != 1400 || !s.GetCarrier() || !s.GetReady() || s.GetKind() != "physical" {
		t.Errorf("LinkStatus = %v; want the lease's MTU, 1400", s)
	}
	if s := status[*networkpb.LinkStatus](p, typeLinkStatus, "lo"); !s.GetUp() {
		t.Errorf("LinkStatus of lo = %v; want it up", s)
	}
	gateway := func(o output) bool {
		s, ok := o.spec.(*networkpb.RouteStatus)
		return ok && s.Destination == "0.0.0.0/0" && s.Gateway == "192.0.2.1" && s.Source == "dhcp"
	}
	if !slices.ContainsFunc(p.outputs, gateway) {
		t.Errorf("no default route in %v", p.outputs)
	}
	conf, err := os.ReadFile(n.resolvConf)
	if want := "nameserver 192.0.2.53\nsearch example.org\n"; string(conf) != want {
		t.Errorf("resolv.conf = %q, %v; want %q", conf, err, want)
	}

	n.in.clients = nil
	n.until("the address gone", func(p *pass) bool {
		return len(p.world.addresses) > 0 && !slices.ContainsFunc(p.world.addresses, func(a address) bool { return a.prefix == leasedPrefix })
	})
	n.quiet()
	if conf, _ := os.ReadFile(n.resolvConf); len(conf) > 0 {
		t.Errorf("resolv.conf = %q; want the lease's lines gone", conf)
	}
}

func TestLeaseIsRenewedOverTheWire(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(4 * time.Second) // T1 after two
	n, _ := newNode(t, "")
	n.in.clients = everyDHCP
	n.until("a lease", hasLease)
	n.until("a renewal", func(*pass) bool { return len(s.messages()) > 2 })
	n.until("a longer lease", func(p *pass) bool { return n.addresses("eth0")[leasedPrefix].valid >= 3 })
	if got := s.messages()[2]; got != dhcpv4.MessageTypeRequest {
		t.Errorf("the third message is %v; want a REQUEST", got)
	}
}

func TestRestartKeepsTheAddress(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	dir := t.TempDir()
	n, stop := startNode(t, "", dir)
	n.in.clients = everyDHCP
	n.until("a lease", hasLease)
	stop()
	before := len(s.messages())

	n, _ = startNode(t, "", dir)
	n.in.clients = everyDHCP
	events := make(chan netlink.AddrUpdate, 100)
	done := make(chan struct{})
	defer close(done)
	must(t, netlink.AddrSubscribe(events, done))
	n.until("the lease again", hasLease)
	n.quiet()
	for len(events) > 0 {
		if e := <-events; !e.NewAddr && e.LinkAddress.IP.Equal(leasedPrefix.Addr().AsSlice()) {
			t.Error("the address was dropped for a while")
		}
	}
	if got := s.messages()[before:]; slices.Contains(got, dhcpv4.MessageTypeDiscover) || len(got) == 0 {
		t.Errorf("after the restart the server saw %v; want a REQUEST only", got)
	}
	if conf, _ := os.ReadFile(n.resolvConf); !strings.Contains(string(conf), "192.0.2.53") {
		t.Errorf("resolv.conf = %q; want the lease's name server", conf)
	}
}

func TestRefusedAddressGoesAfterARestart(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	dir := t.TempDir()
	n, stop := startNode(t, "", dir)
	n.in.clients = everyDHCP
	n.until("a lease", hasLease)
	stop()
	s.mu.Lock()
	s.nak = true
	s.mu.Unlock()
	n, _ = startNode(t, "", dir)
	n.in.clients = everyDHCP
	n.until("the address gone", func(*pass) bool { _, ok := n.addresses("eth0")[leasedPrefix]; return !ok })
}

func TestCarrierTriggersAtOnce(t *testing.T) {
	c := newCable(t, "eth0")
	c.serve(time.Hour)
	c.plug(false)
	n, _ := newNode(t, "")
	n.in.clients = everyDHCP
	n.quiet()
	s := status[*networkpb.DHCPClientStatus](n.last, typeDHCPClientStatus, "default")
	if s.Ready || s.Reason != "NoCarrier" || !strings.Contains(s.Message, "eth0: no carrier") {
		t.Errorf("status = %v; want NoCarrier", s)
	}
	begin := time.Now()
	c.plug(true)
	n.until("a lease", hasLease)
	if took := time.Since(begin); took > 900*time.Millisecond {
		t.Errorf("a lease %v after the carrier", took)
	}
}

func TestStaticAddressRouteAndResolver(t *testing.T) {
	newCable(t, "eth0")
	n, _ := newNode(t, "")
	n.in = inputs{
		addresses: []sdk.Resource[*networkpb.Address]{addressOn("lan", "eth0", "192.0.2.20/24"), addressOn("lan6", "eth0", "2001:db8::20/64")},
		routes: []sdk.Resource[*networkpb.Route]{
			resource(typeRoute, "default", &networkpb.Route{Gateway: "192.0.2.1"}),
			resource(typeRoute, "default6", &networkpb.Route{Gateway: "2001:db8::1", Link: byName("eth0")}),
			resource(typeRoute, "onlink", &networkpb.Route{Gateway: "203.0.113.1", Destination: "198.51.100.7/24", Link: byName("eth0"), Metric: 7}),
		},
		clients:   everyDHCP,
		resolvers: []sdk.Resource[*networkpb.Resolver]{resource(typeResolver, "dns", &networkpb.Resolver{Servers: []string{"9.9.9.9", "2620:fe::fe"}, Search: []string{"example.net"}})},
	}
	ready := func(p *pass) bool {
		for _, o := range p.outputs {
			if o.cause != nil && !o.spec.(interface{ GetReady() bool }).GetReady() {
				return false
			}
		}
		return true
	}
	n.until("all ready", ready)
	n.quiet()
	if s := status[*networkpb.AddressStatus](n.last, typeAddressStatus, "lan"); s.ObservedVersion != "7" || s.LinkName != "eth0" || s.Source != "static" {
		t.Errorf("AddressStatus = %v", s)
	}
	if s := status[*networkpb.RouteStatus](n.last, typeRouteStatus, "onlink"); s.Destination != "198.51.100.0/24" || s.Metric != 7 || s.Source != "static" {
		t.Errorf("RouteStatus = %v", s)
	}
	if s := status[*networkpb.DHCPClientStatus](n.last, typeDHCPClientStatus, "default"); s.Reason != "LeftAlone" || !strings.Contains(s.Message, `the Address "lan"`) {
		t.Errorf("DHCPClientStatus = %v; want eth0 left to the Address", s)
	}
	conf, _ := os.ReadFile(n.resolvConf)
	if want := "nameserver 9.9.9.9\nnameserver 2620:fe::fe\nsearch example.net\n"; string(conf) != want {
		t.Errorf("resolv.conf = %q; want %q", conf, want)
	}

	n.in.addresses[0].Spec.Address = "192.0.2.21/24"
	n.in.routes = n.in.routes[:2]
	n.until("changed", func(p *pass) bool {
		_, old := n.addresses("eth0")[netip.MustParsePrefix("192.0.2.20/24")]
		_, now := n.addresses("eth0")[netip.MustParsePrefix("192.0.2.21/24")]
		return ready(p) && !old && now
	})
	n.quiet()

	n.in = inputs{}
	n.until("nothing of ours left", func(p *pass) bool {
		return !slices.ContainsFunc(p.world.addresses, func(a address) bool { return rtnl.Ours(a.protocol) }) &&
			!slices.ContainsFunc(p.world.routes, func(r route) bool { return rtnl.Ours(r.protocol) })
	})
	n.quiet()
}

func TestWhatIsNotOursStays(t *testing.T) {
	c := newCable(t, "eth0")
	foreign, _ := netlink.ParseAddr("198.51.100.5/24")
	must(t, netlink.AddrAdd(c.near, foreign))
	must(t, netlink.LinkSetUp(c.near))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: c.near.Attrs().Index, Gw: foreign.IP.To4().Mask(foreign.Mask), Dst: nil, Flags: unix.RTNH_F_ONLINK, Priority: 5}))
	n, _ := newNode(t, "")
	n.quiet()
	if s := status[*networkpb.AddressStatus](n.last, typeAddressStatus, "eth0-198.51.100.5"); s.GetSource() != "kernel" {
		t.Errorf("AddressStatus = %v; want the foreign address, as the kernel's", s)
	}
	if s := status[*networkpb.RouteStatus](n.last, typeRouteStatus, "eth0-default-5"); s == nil {
		t.Errorf("the foreign route is not shown: %v", n.last.outputs)
	}
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	newCable(t, "eth0")
	n, _ := newNode(t, "")
	n.in = inputs{
		links: []sdk.Resource[*networkpb.Link]{
			resource(typeLink, "big", &networkpb.Link{Link: byName("eth0"), Mtu: 65536}),
			resource(typeLink, "nic9", &networkpb.Link{Link: byMAC("02:00:00:00:00:09")}),
		},
		addresses: []sdk.Resource[*networkpb.Address]{addressOn("nowhere", "eth9", "192.0.2.20/24"),
			resource(typeAddress, "multicast", &networkpb.Address{Link: byName("eth0"), Address: "ff02::1/64"})},
		routes: []sdk.Resource[*networkpb.Route]{
			resource(typeRoute, "a", &networkpb.Route{Destination: "203.0.113.0/24", Gateway: "192.0.2.1", Link: byName("eth0")}),
			resource(typeRoute, "b", &networkpb.Route{Destination: "203.0.113.0/24", Gateway: "192.0.2.2", Link: byName("eth0")}),
			resource(typeRoute, "c", &networkpb.Route{Gateway: "203.0.113.1"}),
		},
	}
	n.quietButTrying()
	for _, test := range []struct{ typ, id, reason string }{
		{typeLinkStatus, "big", "Refused"},
		{typeLinkStatus, "nic9", "NoLink"},
		{typeAddressStatus, "nowhere", "NoLink"},
		{typeAddressStatus, "multicast", "Refused"},
		{typeRouteStatus, "a", ""},
		{typeRouteStatus, "b", "Conflict"},
		{typeRouteStatus, "c", "NoLink"},
	} {
		i := slices.IndexFunc(n.last.outputs, func(o output) bool { return o.typ == test.typ && o.id == test.id })
		if i < 0 {
			t.Errorf("%s %s: no status", test.typ, test.id)
			continue
		}
		s := n.last.outputs[i].spec.(interface {
			GetReady() bool
			GetReason() string
			GetMessage() string
		})
		if s.GetReason() != test.reason || s.GetReady() != (test.reason == "") || test.reason != "" && s.GetMessage() == "" {
			t.Errorf("%s %s: %v; want the reason %q and a message", test.typ, test.id, s, test.reason)
		}
	}
}

func TestKernelArgumentsComeBeforeDHCPClients(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	n, _ := newNode(t, "ip=192.0.2.30::192.0.2.1:255.255.255.0::eth0:none:192.0.2.54 nameserver=9.9.9.9 ip=eth0:dhcpp")
	n.in.clients = everyDHCP
	n.quiet()
	if a := n.addresses("eth0")[netip.MustParsePrefix("192.0.2.30/24")]; a.protocol != rtnl.ProtocolCmdline || a.valid != forever {
		t.Errorf("address = %+v; want it, marked", a)
	}
	if seen := s.messages(); len(seen) != 0 {
		t.Errorf("the DHCP server saw %v; want nothing", seen)
	}
	if s := status[*networkpb.RouteStatus](n.last, typeRouteStatus, "eth0-default-0"); s.GetSource() != "cmdline" {
		t.Errorf("RouteStatus = %v; want the gateway", s)
	}
	conf, _ := os.ReadFile(n.resolvConf)
	if want := "nameserver 9.9.9.9\nnameserver 192.0.2.54\n"; string(conf) != want {
		t.Errorf("resolv.conf = %q; want %q", conf, want)
	}
	if s := status[*networkpb.LinkStatus](n.last, typeLinkStatus, "eth0"); !strings.Contains(s.GetMessage(), "ip=eth0:dhcpp") {
		t.Errorf("LinkStatus = %v; want the bad argument named", s)
	}
}

func TestKernelArgumentAsksForDHCP(t *testing.T) {
	c := newCable(t, "eth0")
	c.serve(time.Hour)
	n, _ := newNode(t, "ip=dhcp")
	n.until("an address", func(*pass) bool { _, ok := n.addresses("eth0")[leasedPrefix]; return ok })
	n.quiet()
}

// needVLAN skips where the kernel has no VLANs; the guest that we build for has them.
func needVLAN(t *testing.T, n *node, parent netlink.Link) {
	t.Helper()
	err := n.kernel.addVLAN("probe", parent.Attrs().Index, 4000)
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no VLANs (8021q)")
	}
	must(t, err)
	probe, err := netlink.LinkByName("probe")
	must(t, err)
	must(t, netlink.LinkDel(probe))
}

func TestVLANComesAndGoes(t *testing.T) {
	c := newCable(t, "eth0")
	n, _ := newNode(t, "")
	needVLAN(t, n, c.near)
	n.in.links = []sdk.Resource[*networkpb.Link]{resource(typeLink, "storage", &networkpb.Link{Link: byName("eth0"), Mtu: 1300, Vlan: &networkpb.Link_VLAN{Id: 10}})}
	n.in.addresses = []sdk.Resource[*networkpb.Address]{addressOn("storage", "eth0.10", "192.0.2.40/24")}
	n.quiet()
	s := status[*networkpb.LinkStatus](n.last, typeLinkStatus, "storage")
	if !s.Ready || s.Name != "eth0.10" || !s.Up || s.Mtu != 1300 || s.Kind != "vlan" {
		t.Errorf("LinkStatus = %v", s)
	}
	if a := status[*networkpb.AddressStatus](n.last, typeAddressStatus, "storage"); !a.Ready || a.LinkName != "eth0.10" {
		t.Errorf("AddressStatus = %v", a)
	}
	n.in.links[0].Spec.Vlan = &networkpb.Link_VLAN{Id: 11, Name: "eth0.10"}
	n.quiet()
	if l, _ := n.last.linkNamed("eth0.10"); l.vlan != 11 {
		t.Errorf("link = %+v; want the VLAN 11", l)
	}
	n.in = inputs{}
	n.quiet()
	if _, there := n.last.linkNamed("eth0.10"); there {
		t.Error("the VLAN stays though nobody asks for it")
	}
}

func TestVLANOfKernelArguments(t *testing.T) {
	c := newCable(t, "eth0")
	n, _ := newNode(t, "vlan=eth0.20:eth0 ip=192.0.2.50::192.0.2.1:24::eth0.20:none")
	needVLAN(t, n, c.near)
	n.in.clients = everyDHCP
	n.quiet()
	if _, ok := n.addresses("eth0.20")[netip.MustParsePrefix("192.0.2.50/24")]; !ok {
		t.Errorf("no address on eth0.20: %v", n.last.outputs)
	}
	if s := status[*networkpb.DHCPClientStatus](n.last, typeDHCPClientStatus, "default"); s.Reason != "LeftAlone" {
		t.Errorf("DHCPClientStatus = %v; want the VLAN's parent left alone", s)
	}
}
