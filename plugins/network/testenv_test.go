package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/netnstest"
	"github.com/cosi-os/cosi/sdk"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// cable is a pair of links: one in the namespace of the tests, the other in one of its own, where a DHCP server may listen.
type cable struct {
	t    *testing.T
	name string
	near netlink.Link
	peer *netlink.Handle // of the other namespace
	far  netlink.Link
	do   chan func() // run by a thread of the other namespace
}

// newCable makes a pair of links; far has the address 192.0.2.1/24 and is up.
func newCable(t *testing.T, name string) *cable {
	t.Helper()
	netnstest.Want(t)
	c := &cable{t: t, name: name, do: make(chan func())}
	ready := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		ready <- unix.Gettid()
		for f := range c.do {
			f()
		}
	}()
	tid := <-ready
	t.Cleanup(func() { close(c.do) })
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", tid))
	must(t, err)
	defer ns.Close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far", PeerNamespace: netlink.NsFd(ns.Fd())}))
	c.near, err = netlink.LinkByName(name)
	must(t, err)
	t.Cleanup(func() { netlink.LinkDel(c.near) })
	c.inside(func() {
		c.peer, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		must(t, err)
	})
	t.Cleanup(c.peer.Close)
	c.far, err = c.peer.LinkByName("far")
	must(t, err)
	address, _ := netlink.ParseAddr("192.0.2.1/24")
	must(t, c.peer.AddrAdd(c.far, address))
	c.plug(true)
	return c
}

// plug moves the carrier.
func (c *cable) plug(in bool) {
	c.t.Helper()
	if in {
		must(c.t, c.peer.LinkSetUp(c.far))
	} else {
		must(c.t, c.peer.LinkSetDown(c.far))
	}
}

// inside runs f in the other namespace.
func (c *cable) inside(f func()) {
	done := make(chan bool)
	c.do <- func() { defer close(done); f() }
	<-done
}

// server is a real DHCP server at the far end of a cable.
type server struct {
	mu    sync.Mutex // guards the fields below
	lease time.Duration
	nak   bool
	seen  []dhcpv4.MessageType
}

func (c *cable) serve(lease time.Duration) *server {
	c.t.Helper()
	s := &server{lease: lease}
	var conn *net.UDPConn
	c.inside(func() {
		var err error
		conn, err = server4.NewIPv4UDPConn("far", &net.UDPAddr{Port: dhcpv4.ServerPort})
		must(c.t, err)
	})
	listener, err := server4.NewServer("far", nil, s.handle, server4.WithConn(conn))
	must(c.t, err)
	var serving sync.WaitGroup
	serving.Go(func() { listener.Serve() })
	c.t.Cleanup(func() { listener.Close(); serving.Wait() })
	return s
}

func (s *server) handle(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, m.MessageType())
	typ := dhcpv4.MessageTypeAck
	switch {
	case m.MessageType() == dhcpv4.MessageTypeDiscover:
		typ = dhcpv4.MessageTypeOffer
	case s.nak:
		typ = dhcpv4.MessageTypeNak
	}
	reply, err := dhcpv4.NewReplyFromRequest(m,
		dhcpv4.WithMessageType(typ),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1))),
		dhcpv4.WithOption(dhcpv4.OptDNS(net.IPv4(192, 0, 2, 53))),
		dhcpv4.WithDomainSearchList("example.org"),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 120}), // 1400
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(s.lease)))
	if err == nil {
		conn.WriteTo(reply.ToBytes(), peer)
	}
}

func (s *server) messages() []dhcpv4.MessageType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// node runs the controller against the kernel, as the SDK does: a pass whenever it is woken.
type node struct {
	*network
	t    *testing.T
	in   inputs
	wake chan bool
	last *pass
}

// newNode starts a controller with a kernel command line. It stops with the test, or with the function that it returns.
func newNode(t *testing.T, cmdline string) (*node, func()) {
	t.Helper()
	dir := t.TempDir()
	return startNode(t, cmdline, dir)
}

func startNode(t *testing.T, cmdline, dir string) (*node, func()) {
	t.Helper()
	n := openNode(t, cmdline, dir)
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := n.watch(ctx, n.ring); err != nil {
			t.Error(err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); watching.Wait() })
	t.Cleanup(stop)
	return n, stop
}

// openNode makes a node that nothing wakes yet.
func openNode(t *testing.T, cmdline, dir string) *node {
	t.Helper()
	n := &node{network: newNetwork(), t: t, wake: make(chan bool, 1)}
	n.cmdline, n.resolvConf = filepath.Join(dir, "cmdline"), filepath.Join(dir, "resolv.conf")
	must(t, os.WriteFile(n.cmdline, []byte(cmdline), 0o644))
	must(t, n.open())
	t.Cleanup(n.kernel.close)
	n.kernel.cables = map[string]bool{"veth": true}
	return n
}

func (n *node) ring() {
	select {
	case n.wake <- true:
	default:
	}
}

// pass runs one pass.
func (n *node) pass() *pass {
	n.t.Helper()
	p := n.newPass(n.in)
	must(n.t, p.run())
	n.last = p
	return p
}

// until runs passes until done is content, and fails after a while.
func (n *node) until(what string, done func(p *pass) bool) *pass {
	n.t.Helper()
	limit := time.After(10 * time.Second)
	for {
		if p := n.pass(); done(p) {
			return p
		}
		select {
		case <-n.wake:
		case <-limit:
			n.t.Fatalf("%s: not after 10 s; the outputs are %v", what, n.last.outputs)
		}
	}
}

// quiet runs passes until nothing wakes the node any more, and then one that may not write.
func (n *node) quiet() {
	n.t.Helper()
	n.quietButTrying()
	before := n.kernel.writes
	n.pass()
	if wrote := n.kernel.writes - before; wrote != 0 {
		n.t.Errorf("a pass over a network that is as it should be made %d changes", wrote)
	}
}

// quietButTrying is quiet for a node that has something to try at each pass.
func (n *node) quietButTrying() {
	n.t.Helper()
	for range 100 {
		n.pass()
		select {
		case <-n.wake:
			continue
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
	n.t.Fatal("it never gets quiet")
}

// status returns an output.
func status[T proto.Message](p *pass, typ, id string) T {
	for _, o := range p.outputs {
		if o.typ == typ && o.id == id {
			return o.spec.(T)
		}
	}
	var none T
	return none
}

func resource[T proto.Message](typ, id string, spec T) sdk.Resource[T] {
	return sdk.Resource[T]{Metadata: &resourcepb.Metadata{Namespace: "config", Type: typ, Id: id, Version: "7"}, Spec: spec}
}

func addressOn(id, link, prefix string) sdk.Resource[*networkpb.Address] {
	return resource(typeAddress, id, &networkpb.Address{Link: byName(link), Address: prefix})
}

func (n *node) addresses(link string) map[netip.Prefix]address {
	n.t.Helper()
	w, err := n.kernel.read()
	must(n.t, err)
	all := map[netip.Prefix]address{}
	for _, l := range w.links {
		for _, a := range w.addresses {
			if a.link == l.index && l.name == link {
				all[a.prefix] = a
			}
		}
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
