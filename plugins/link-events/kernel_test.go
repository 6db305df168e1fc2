package linkevents

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// namespace runs f in a network namespace of its own. Sockets that f opens stay there.
func namespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("this user may make no network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

// TestTheKernel: what others do to a network of the real kernel is announced, and found by looking.
func TestTheKernel(t *testing.T) {
	k := &kernel{sys: t.TempDir()}
	var others *netlink.Handle
	var heard announcements
	var errs [3]error
	namespace(t, func() {
		errs[0] = k.open()
		others, errs[1] = netlink.NewHandle(unix.NETLINK_ROUTE)
		heard, errs[2] = openAnnouncements()
	})
	must(t, errors.Join(errs[:]...))
	notes := listen(t, heard)
	before, err := k.look()
	must(t, err)
	// step is one thing that others do, and the events of it.
	step := func(what string, do func() error, wanted []string, rings ...subject) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, s := range rings {
			waitFor(t, notes, s)
		}
		now, err := k.look()
		must(t, err)
		var got []string
		for _, c := range now.since(before) {
			got = append(got, c.event.GetAction()+" "+c.event.GetDevice()+" "+c.event.GetMessage())
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: %q; want %q", what, got, wanted)
		}
		before = now
	}

	attributes := netlink.NewLinkAttrs()
	attributes.Name = "near"
	step("a pair of links", func() error { return others.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "far"}) },
		[]string{"LinkAdded far veth", "LinkAdded near veth"})
	near, err := others.LinkByName("near")
	must(t, err)
	far, err := others.LinkByName("far")
	must(t, err)
	link := subject{linkChange, near.Attrs().Index}
	waitFor(t, notes, link)
	step("one is switched on", func() error { return others.LinkSetUp(near) }, nil, link)
	step("and the other", func() error { return others.LinkSetUp(far) }, []string{"CarrierUp far ", "CarrierUp near "}, link)
	step("a flap", func() error { return errors.Join(others.LinkSetDown(far), others.LinkSetUp(far)) },
		[]string{"CarrierDown far ", "CarrierUp far ", "CarrierDown near ", "CarrierUp near "}, link)

	foreign, err := netlink.ParseAddr("192.0.2.7/24")
	must(t, err)
	step("an address", func() error { return others.AddrAdd(near, foreign) }, []string{"AddressAdded near 192.0.2.7/24"}, subject{addresses, link.index})
	way := func(protocol int) *netlink.Route {
		return &netlink.Route{LinkIndex: link.index, Gw: []byte{192, 0, 2, 1}, Protocol: netlink.RouteProtocol(protocol), Priority: protocol}
	}
	step("a route", func() error { return others.RouteAdd(way(unix.RTPROT_STATIC)) }, []string{"RouteAdded near 0.0.0.0/0 via 192.0.2.1"}, subject{what: routes})
	step("a route of plugin network", func() error { return others.RouteAdd(way(rtnl.ProtocolDHCP)) }, nil, subject{what: routes})
	// The kernel announces neither of the two routes.
	step("the address goes", func() error { return others.AddrDel(near, foreign) },
		[]string{"AddressRemoved near 192.0.2.7/24", "RouteRemoved near 0.0.0.0/0 via 192.0.2.1"}, subject{addresses, link.index})
	step("the links go", func() error { return others.LinkDel(near) }, []string{"LinkRemoved far veth", "LinkRemoved near veth"}, link)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen hears until the test ends.
func listen(t *testing.T, a announcements) <-chan note {
	notes := make(chan note, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- a.Listen(ctx, func(n note) { notes <- n }, func(n uint64) { t.Errorf("%d lost", n) })
	}()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, a.Close()); err != nil {
			t.Errorf("Listen = %v", err)
		}
	})
	return notes
}

// waitFor waits for a note about s.
func waitFor(t *testing.T, notes <-chan note, s subject) {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case n := <-notes:
			if n.subject == s {
				return
			}
		case <-end:
			t.Fatalf("no ring about %v", s)
		}
	}
}

func TestWhatIsCutIsLeftOut(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, announced-1), make([]byte, announced)} {
		if s, ok := fromAnnouncement(b); ok {
			t.Errorf("fromAnnouncement(%v) = %v; want nothing", b, s)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, unix.SizeofIfInfomsg-1), make([]byte, unix.SizeofIfInfomsg), append(make([]byte, unix.SizeofIfInfomsg), 200, 0, 3, 0, 1)} {
		if l, ok := parseLink(b); ok {
			t.Errorf("parseLink(%v) = %v; want nothing", b, l)
		}
	}
}
