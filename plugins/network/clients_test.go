package network

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
	"github.com/cosi-os/cosi/sdk"
)

func TestLinkWithANewMACGetsAnotherClient(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	n, _ := newNode(t, "")
	n.in.clients = everyDHCP
	n.until("a lease", hasLease)
	seen := len(s.messages())
	must(t, netlink.LinkSetHardwareAddr(c.near, net.HardwareAddr{2, 0, 0, 0, 0, 7}))
	n.until("asked with the new address", func(p *pass) bool { return hasLease(p) && len(s.messages()) > seen })
	n.quiet()
	if s := status[*networkpb.LinkStatus](n.last, typeLinkStatus, "eth0"); s.GetMac() != "02:00:00:00:00:07" {
		t.Errorf("LinkStatus = %v; want the new MAC", s)
	}
}

// TestClientsThatAreStartedAgainConfirmTheirLeases: Watch may end with an error, and is then called again.
func TestClientsThatAreStartedAgainConfirmTheirLeases(t *testing.T) {
	c := newCable(t, "eth0")
	s := c.serve(time.Hour)
	n := openNode(t, "", t.TempDir())
	n.in.clients = everyDHCP
	seen := 0
	for range 2 {
		seen = len(s.messages())
		ctx, cancel := context.WithCancel(context.Background())
		var watching sync.WaitGroup
		watching.Go(func() { must(t, n.watch(ctx, n.ring)) })
		n.until("a lease", func(p *pass) bool { return hasLease(p) && len(s.messages()) > seen })
		n.quiet()
		cancel()
		watching.Wait()
	}
	if got := s.messages()[seen:]; slices.Contains(got, dhcpv4.MessageTypeDiscover) {
		t.Errorf("the second time the server saw %v; want REQUESTs for the lease", got)
	}
}

func TestClientThatIgnoresRoutesAndResolvers(t *testing.T) {
	c := newCable(t, "eth0")
	c.serve(time.Hour)
	n, _ := newNode(t, "")
	n.in.clients = []sdk.Resource[*networkpb.DHCPClient]{
		resource(typeDHCPClient, "default", &networkpb.DHCPClient{Link: byName("eth0"), IgnoreRoutes: true, IgnoreResolvers: true})}
	n.until("a lease", hasLease)
	n.quiet()
	if slices.ContainsFunc(n.last.world.routes, func(r route) bool { return rtnl.Ours(r.protocol) }) {
		t.Errorf("routes = %v; want none of the lease", n.last.world.routes)
	}
	if content, _ := os.ReadFile(n.resolvConf); len(content) > 0 {
		t.Errorf("resolv.conf = %q; want nothing of the lease", content)
	}
}

func TestClientsForgetALinkThatIsNotWanted(t *testing.T) {
	c := newClients()
	previous := netip.MustParseAddr("192.0.2.10")
	c.want(map[int]clientLink{2: {mac: "52:54:00:12:34:56", previous: previous}})
	if !c.of(2).Keep {
		t.Error("an address of an earlier lease is not kept")
	}
	c.want(map[int]clientLink{2: {mac: "52:54:00:12:34:56", carrier: true}})
	if c.wanted[2].previous != previous {
		t.Errorf("previous = %v; want the one of the first time, %v", c.wanted[2].previous, previous)
	}
	c.want(nil)
	if _, ok := c.status[2]; ok || c.of(2).Keep {
		t.Error("the status of a link without a client stays")
	}
}
