package vmtest_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// checkLinkEvents: a cable that is pulled and put back is two events of the link, what somebody else does to addresses and routes is one each, and
// an address that a resource asks for is none.
func checkLinkEvents(t *testing.T, n *vmtest.Node, ebpf bool) {
	mode, unavailable := byFunctions(t, n)
	if !ebpf {
		mode, unavailable = "netlink", []string{"fentry", "kprobe"}
	}
	before := generator(t, n, "link-events", mode)
	if u := before.GetUnavailable(); len(u) != len(unavailable) || len(u) > 0 && u[0].GetWhy() == "" {
		t.Errorf("generator %v; want it said why the better modes are unavailable", before)
	}
	const own = "198.51.100.7/32"
	n.Converged(t, n.Apply(t, "metadata: {type: Addresses.network.cosi.dev, id: own}\nspec: {link: {name: lo}, address: "+own+"}\n")...)
	down, up := unplug(t, n)
	link := &networkpb.LinkStatus{}
	if n.Get(t, "linkstatuses", up.GetDevice(), link) == nil || link.GetKind() != "physical" || link.GetIndex() != up.GetIndex() || down.GetDevice() != up.GetDevice() {
		t.Errorf("events %v and %v; want them of the link that has the cable", down, up)
	}
	if took := time.Duration(up.GetBoottimeNs() - down.GetBoottimeNs()); down.GetCount()+up.GetCount() != 0 || ebpf && took < unplugged/2 {
		t.Errorf("events %v and %v, %s apart; want one of each, with the kernel's times", down, up, took)
	}
	stranger(t, n, "come", "AddressAdded", "RouteAdded")
	stranger(t, n, "go", "AddressRemoved", "RouteRemoved")
	e := &eventspb.LinkEvent{}
	for _, event := range list(t, n, "linkevents") {
		decode(t, event, e)
		if e.GetPrefix() == own || e.GetAction() == "Resynchronised" {
			t.Errorf("an event that nobody provoked: %v", e)
		}
	}
	// The status comes after the event. The kernel announces each address with a route of its own.
	after := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", "link-events", after, func(*resourcepb.Metadata) bool { return after.GetRings() >= before.GetRings()+2+6 })
	if after.GetMode() != mode || after.GetLost() > 0 {
		t.Errorf("generator: %v; want that it hears by %s, and none lost", after, mode)
	}
}

// stranger has the plugin storm make two link events, and waits for them.
func stranger(t *testing.T, n *vmtest.Node, id, address, route string) {
	t.Helper()
	e := &eventspb.LinkEvent{}
	last := newest(t, n, "linkevents", e)
	rage(t, n, id, "link_events: 2")
	for action, want := range map[string]*eventspb.LinkEvent{
		address: {Prefix: "203.0.113.7/32"}, route: {Prefix: "198.51.100.128/25", Protocol: unix.RTPROT_STATIC, Table: unix.RT_TABLE_MAIN},
	} {
		await(t, n, "linkevents", e, func() bool { return e.GetAction() == action && e.GetBoottimeNs() > last })
		if e.GetDevice() != "lo" || e.GetPrefix() != want.GetPrefix() || e.GetProtocol() != want.GetProtocol() || e.GetTable() != want.GetTable() || e.GetCount() != 0 {
			t.Errorf("event %v; want it of %v of lo", e, want)
		}
	}
}

// unplugged is how long a cable is.
const unplugged = time.Second

// unplug pulls the cable and puts it back, and returns the events of that.
func unplug(t *testing.T, n *vmtest.Node) (down, up *eventspb.LinkEvent) {
	t.Helper()
	down, up = &eventspb.LinkEvent{}, &eventspb.LinkEvent{}
	last := newest(t, n, "linkevents", down)
	for _, up := range []bool{false, true} { // the second, because nobody can ask the node meanwhile
		if err := n.SetLink(n.Patience(t, moment), up); err != nil {
			t.Fatal(err)
		}
		time.Sleep(unplugged)
	}
	await(t, n, "linkevents", down, func() bool { return down.GetAction() == "CarrierDown" && down.GetBoottimeNs() > last })
	await(t, n, "linkevents", up, func() bool { return up.GetAction() == "CarrierUp" && up.GetBoottimeNs() > last })
	return down, up
}

// checkLinkOverflow: what the ring buffer had no room for while the generator was stopped is counted, an event says so, and what is there in the end
// was looked up.
func checkLinkOverflow(t *testing.T, n *vmtest.Node) {
	mode, _ := byFunctions(t, n)
	before := generator(t, n, "link-events", mode)
	e := &eventspb.LinkEvent{}
	last := newest(t, n, "linkevents", e)
	gauge(t, n, "stop-links", "kill: link-events, signal: SIGSTOP")
	const changes, announced = 3002, 4503 // after the last of them the address and the route are there
	st := rage(t, n, "links", fmt.Sprintf("link_events: %d", changes))
	gauge(t, n, "continue-links", "kill: link-events, signal: SIGCONT")
	after := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", "link-events", after, func(*resourcepb.Metadata) bool {
		return after.GetRings()+after.GetLost() >= before.GetRings()+before.GetLost()+announced
	})
	lost := after.GetLost() - before.GetLost()
	if lost == 0 || after.GetResynchronisations() == before.GetResynchronisations() {
		t.Errorf("generator %v, before %v; want that something was lost, and another resynchronisation", after, before)
	}
	for _, action := range []string{"Resynchronised", "AddressAdded", "RouteAdded"} {
		await(t, n, "linkevents", e, func() bool { return e.GetAction() == action && e.GetBoottimeNs() > last })
	}
	told := 0
	for _, event := range list(t, n, "linkevents") {
		if decode(t, event, e); e.GetDevice() == "lo" && e.GetBoottimeNs() > last {
			told++
		}
	}
	if told != 2 {
		t.Errorf("%d events of lo; want those of what is there in the end", told)
	}
	t.Logf("%d announcements in %.2f s: %d were lost", announced, st.GetSeconds(), lost)
}
