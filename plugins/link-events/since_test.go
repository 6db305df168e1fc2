package linkevents

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// network is a world with one link, an address and a route.
func network() world {
	return world{
		links:     map[int]link{2: {name: "eth0", on: true, carrier: true, ups: 1, speed: 1000}},
		addresses: map[address]int{{2, netip.MustParsePrefix("192.0.2.7/24")}: 0},
		routes:    map[route]int{{link: 2, destination: netip.MustParsePrefix("0.0.0.0/0"), gateway: netip.MustParseAddr("192.0.2.1"), metric: 100, table: 254}: 4},
	}
}

func TestSince(t *testing.T) {
	change := func(f func(l *link)) func(w *world) {
		return func(w *world) { l := w.links[2]; f(&l); w.links[2] = l }
	}
	more := netip.MustParsePrefix("2001:db8::7/64")
	for name, tc := range map[string]struct {
		change func(w *world)
		want   []string // action, device, message and count
	}{
		"nothing":           {func(*world) {}, nil},
		"carrier lost":      {change(func(l *link) { l.carrier, l.downs, l.speed = false, 1, 0 }), []string{"CarrierDown eth0  0"}},
		"switched off":      {change(func(l *link) { l.on, l.carrier, l.downs = false, false, 1 }), []string{"CarrierDown eth0 it is switched off 0"}},
		"a flap":            {change(func(l *link) { l.ups, l.downs = 2, 1 }), []string{"CarrierDown eth0  0", "CarrierUp eth0 1000 Mbit/s 0"}},
		"many, then lost":   {change(func(l *link) { l.carrier, l.ups, l.downs = false, 3, 3 }), []string{"CarrierUp eth0 1000 Mbit/s 2", "CarrierDown eth0  3"}},
		"lost while read":   {change(func(l *link) { l.downs = 1 }), []string{"CarrierDown eth0  0"}},
		"slower":            {change(func(l *link) { l.speed = 100 }), []string{"SpeedChanged eth0 100 Mbit/s, before 1000 Mbit/s 0"}},
		"speed not known":   {change(func(l *link) { l.speed = 0 }), nil},
		"another link":      {func(w *world) { w.links[3] = link{name: "veth0", kind: "veth"} }, []string{"LinkAdded veth0 veth 0"}},
		"a VLAN of ours":    {func(w *world) { w.links[3] = link{name: "eth0.5", kind: "vlan", ours: true} }, nil},
		"another address":   {func(w *world) { w.addresses[address{2, more}] = 2 }, []string{"AddressAdded eth0 2001:db8::7/64 0"}},
		"an address of us":  {func(w *world) { w.addresses[address{2, more}] = rtnl.ProtocolDHCP }, nil},
		"the link's own":    {func(w *world) { w.addresses[address{2, more}] = addressOfLink }, nil},
		"address adopted":   {func(w *world) { w.addresses[address{2, netip.MustParsePrefix("192.0.2.7/24")}] = rtnl.ProtocolStatic }, nil},
		"address gone":      {func(w *world) { clear(w.addresses) }, []string{"AddressRemoved eth0 192.0.2.7/24 0"}},
		"route gone":        {func(w *world) { clear(w.routes) }, []string{"RouteRemoved eth0 0.0.0.0/0 via 192.0.2.1 0"}},
		"route to a link":   {func(w *world) { w.routes[route{link: 2, destination: more.Masked(), table: 254}] = 2 }, nil},
		"route of us":       {func(w *world) { w.routes[route{link: 2, destination: more.Masked(), table: 254}] = rtnl.ProtocolStatic }, nil},
		"a hole":            {func(w *world) { w.routes[route{destination: more.Masked(), table: 7}] = 4 }, []string{"RouteAdded  2001:db8::/64 0"}},
		"gone with its all": {func(w *world) { clear(w.links); clear(w.addresses); clear(w.routes) }, []string{"LinkRemoved eth0  0", "AddressRemoved eth0 192.0.2.7/24 0", "RouteRemoved eth0 0.0.0.0/0 via 192.0.2.1 0"}},
	} {
		now := network()
		tc.change(&now)
		var got []string
		for _, c := range now.since(network()) {
			e := c.event
			got = append(got, e.GetAction()+" "+e.GetDevice()+" "+e.GetMessage()+" "+string(rune('0'+e.GetCount())))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q; want %q", name, got, tc.want)
		}
	}
}

// A speed is compared with the last that was known, however long there was no carrier.
func TestSpeedIsRememberedWithoutACarrier(t *testing.T) {
	first, without, slower := network(), network(), network()
	without.links[2] = link{name: "eth0", on: true, ups: 1, downs: 1}
	without.since(first)
	slower.links[2] = link{name: "eth0", on: true, carrier: true, ups: 2, downs: 1, speed: 100}
	got := slower.since(without)
	if len(got) != 2 || got[1].event.GetAction() != "SpeedChanged" || got[1].event.GetSpeed() != 100 {
		t.Errorf("since = %v; want the carrier and the new speed", got)
	}
}
