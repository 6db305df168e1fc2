package network

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/plugins/network/dhcp"
	"github.com/cosi-os/cosi/sdk"
)

func TestSameAddressAllowsForTheSecondsGoneBy(t *testing.T) {
	for _, test := range []struct {
		name     string
		is, want address
		same     bool
	}{
		{"for ever", address{valid: forever, protocol: 197}, address{valid: forever, protocol: 197}, true},
		{"another's", address{valid: forever}, address{valid: forever, protocol: 197}, false},
		{"a second of rounding", address{valid: 3599}, address{valid: 3600}, true},
		{"and the other way", address{valid: 3600}, address{valid: 3599}, true},
		{"renewed", address{valid: 1800}, address{valid: 3600}, false},
		{"lease instead of for ever", address{valid: forever}, address{valid: 3600}, false},
		{"for ever instead of a lease", address{valid: 3600}, address{valid: forever}, false},
		{"about to end", address{valid: 0}, address{valid: 1}, true},
		{"nearly for ever", address{valid: forever - 1}, address{valid: forever - 2}, true},
	} {
		if got := same(test.is, test.want); got != test.same {
			t.Errorf("%s: same(%d, %d) = %v; want %v", test.name, test.is.valid, test.want.valid, got, test.same)
		}
	}
}

func TestBroadcastOf(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.10/24": "192.0.2.255", "10.1.2.3/8": "10.255.255.255", "192.0.2.9/30": "192.0.2.11",
		"192.0.2.10/31": "", "192.0.2.10/32": "", "2001:db8::1/64": "",
	} {
		got, ok := broadcastOf(netip.MustParsePrefix(prefix))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("broadcastOf(%s) = %v, %v; want %q", prefix, got, ok, want)
		}
	}
}

// TestClientStatus goes through what may be of the links that a DHCPClient selects.
func TestClientStatus(t *testing.T) {
	lease := &dhcp.Lease{Address: leasedPrefix, Server: netip.MustParseAddr("192.0.2.1"), Obtained: time.Unix(0, 0), Expires: time.Unix(3600, 0)}
	leasing := func() *leased { return &leased{status: dhcp.Status{Lease: lease}} }
	waiting := func() *leased { return &leased{status: dhcp.Status{Message: "no offer"}} }
	links := []link{{index: 1, name: "eth0", kind: kindPhysical, carrier: true}, {index: 2, name: "eth1", kind: kindPhysical, carrier: true}}
	dark := []link{links[0], {index: 2, name: "eth1", kind: kindPhysical}}
	for _, test := range []struct {
		name    string
		links   []link
		leased  map[int]*leased
		managed map[int]string
		ready   bool
		reason  string
		message string
	}{
		{"no link", nil, nil, nil, false, "NoLink", ""},
		{"all leased", links, map[int]*leased{1: leasing(), 2: leasing()}, nil, true, "", ""},
		{"one waits", links, map[int]*leased{1: leasing(), 2: waiting()}, nil, false, "NoLease", "eth1: no offer"},
		{"the first try is under way", links[:1], map[int]*leased{1: {}}, nil, false, "NoLease", "eth0: asking for an address"},
		{"one without a carrier does not count", dark, map[int]*leased{1: leasing(), 2: waiting()}, nil, true, "", "eth1: no carrier"},
		{"none has a carrier", dark[1:], map[int]*leased{2: waiting()}, nil, false, "NoCarrier", "eth1: no carrier"},
		{"configured otherwise", links[:1], nil, map[int]string{1: "the Address"}, true, "LeftAlone", "eth0 is left to the Address"},
		{"one configured otherwise, one dark", dark, map[int]*leased{2: waiting()}, map[int]string{1: "x"}, false, "NoCarrier", "eth0 is left to x; eth1: no carrier"},
	} {
		p := newNetwork().newPass(inputs{})
		p.leased, p.managed = test.leased, test.managed
		s := p.clientStatus(test.links)
		if s.Ready != test.ready || s.Reason != test.reason || s.Message != test.message {
			t.Errorf("%s: %v; want ready %v, reason %q, message %q", test.name, s, test.ready, test.reason, test.message)
		}
	}
}

func TestArgumentsForLinksThatAreNotThereAreShown(t *testing.T) {
	n := newNetwork()
	n.arguments = parseCmdline("ip=eth9:dhcp vlan=eth8.10:eth8")
	p := n.newPass(inputs{})
	p.world.links = []link{{index: 2, name: "eth0", kind: kindPhysical, mac: "52:54:00:12:34:56"}}
	p.vlanWishes()
	p.runClients()
	s := p.linkStatuses()[0].spec.(*networkpb.LinkStatus)
	for _, want := range []string{"there is no link named eth9", "there is no link named eth8"} {
		if !strings.Contains(s.Message, want) {
			t.Errorf("message %q; want %q in it", s.Message, want)
		}
	}
}

func TestLinkStatusesAnswerUnderTheIDOfTheLink(t *testing.T) {
	p := newNetwork().newPass(inputs{links: []sdk.Resource[*networkpb.Link]{
		resource(typeLink, "lan", &networkpb.Link{Link: byMAC("52:54:00:12:34:56")}),
		resource(typeLink, "eth0", &networkpb.Link{Link: byName("eth0")}),
		resource(typeLink, "none", &networkpb.Link{Link: byName("eth9")}),
	}})
	mac, _ := net.ParseMAC("52:54:00:12:34:56")
	p.world.links = []link{{index: 2, name: "eth0", kind: kindPhysical, mac: mac.String(), up: true}}
	p.raiseLinks() // it is up: nothing is asked of the kernel
	statuses := map[string]*networkpb.LinkStatus{}
	for _, o := range p.linkStatuses() {
		if statuses[o.id] != nil {
			t.Errorf("two statuses with the id %s", o.id)
		}
		statuses[o.id] = o.spec.(*networkpb.LinkStatus)
	}
	for id, want := range map[string]string{"lan": "eth0", "eth0": "eth0", "none": ""} {
		s := statuses[id]
		if s.GetName() != want || s.GetObservedVersion() != "7" || s.GetReady() != (want != "") {
			t.Errorf("%s: %v; want an answer about %q", id, s, want)
		}
	}
}
