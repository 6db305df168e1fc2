package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 0x12, 0x34, 0x56}

// wire is a link with a DHCP server of the test's making at the other end. The clock is synctest's.
type wire struct {
	mu     sync.Mutex
	sent   []sent
	answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
	sendOn error
}

type sent struct {
	at      time.Duration
	message *dhcpv4.DHCPv4
	to      Peer
}

type wireConn struct {
	*wire
	start  time.Time
	closed chan struct{}
	in     chan []byte
}

func (c *wireConn) Send(b []byte, _ netip.Addr, to Peer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sendOn != nil {
		return c.sendOn
	}
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return err
	}
	c.sent = append(c.sent, sent{time.Since(c.start), m, to})
	if answer := c.answer(m); answer != nil {
		c.in <- answer.ToBytes()
	}
	return nil
}

func (c *wireConn) Receive() ([]byte, net.HardwareAddr, error) {
	select {
	case b := <-c.in:
		return b, net.HardwareAddr{2, 0, 0, 0, 0, 1}, nil
	case <-c.closed:
		return nil, nil, net.ErrClosed
	}
}

func (c *wireConn) Close() error { close(c.closed); return nil }

// all returns what was sent so far.
func (w *wire) all() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

func (w *wire) types() []dhcpv4.MessageType {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []dhcpv4.MessageType
	for _, s := range w.sent {
		all = append(all, s.message.MessageType())
	}
	return all
}

// running is a client that runs in a bubble.
type running struct {
	*wire
	carrier chan bool
	stop    func()
	last    Status // guarded by mu
}

func start(t *testing.T, answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4, previous netip.Addr) *running {
	r := &running{wire: &wire{answer: answer}, carrier: make(chan bool, 1)}
	begin := time.Now()
	c := &Client{
		MAC:      testMAC,
		Carrier:  r.carrier,
		Previous: previous,
		Changed:  func(s Status) { r.mu.Lock(); defer r.mu.Unlock(); r.last = s },
		Open: func() (Conn, error) {
			return &wireConn{wire: r.wire, start: begin, closed: make(chan struct{}), in: make(chan []byte, 4)}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
	return r
}

// grants answers as a server that leases 192.0.2.10 for the time given.
func grants(lifetime time.Duration) func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	return func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
		reply, err := dhcpv4.NewReplyFromRequest(m,
			dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 10)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
			dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
			dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1))),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(lifetime)))
		if err != nil {
			panic(err)
		}
		typ := dhcpv4.MessageTypeAck
		if m.MessageType() == dhcpv4.MessageTypeDiscover {
			typ = dhcpv4.MessageTypeOffer
		}
		reply.UpdateOption(dhcpv4.OptMessageType(typ))
		return reply
	}
}

func silent(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4 { return nil }

func refuses(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	reply := grants(time.Hour)(m)
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		reply.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
	}
	return reply
}

func (r *running) use(answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer, r.sent = answer, nil
}

// now returns the last status.
func (r *running) now() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
)

func wantTypes(t *testing.T, r *running, want ...dhcpv4.MessageType) {
	t.Helper()
	if got := r.types(); !slices.Equal(got, want) {
		t.Errorf("sent %v; want %v", got, want)
	}
}

func TestFirstDiscoverLeavesWithTheCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		synctest.Wait()
		wantTypes(t, r)
		r.carrier <- true
		synctest.Wait() // no time passes
		wantTypes(t, r, discover, request)
		if r.now().Lease == nil || r.now().Lease.Address != netip.MustParsePrefix("192.0.2.10/24") {
			t.Errorf("status = %+v; want a lease of 192.0.2.10/24", r.now())
		}
	})
}

func TestSilenceIsAskedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, silent, netip.Addr{})
		defer r.stop()
		r.carrier <- true
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(r.all()); n < 50 || n > 80 { // about one in 64 s
			t.Errorf("%d tries in an hour; want 50 to 80", n)
		}
		all := r.all()
		for i := 1; i < len(all); i++ {
			wait := all[i].at - all[i-1].at
			nominal := min(time.Second<<min(i-1, 6), 64*time.Second)
			if wait < nominal*3/4 || wait > nominal*5/4 {
				t.Errorf("wait %d = %v; want %v, a quarter more or less", i, wait, nominal)
			}
		}
		if r.now().Message == "" {
			t.Error("no message; want what was tried")
		}
	})
}

func TestLeaseIsRenewedAtT1WithItsServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		first := r.now().Lease
		r.use(grants(time.Hour))
		time.Sleep(30*time.Minute - time.Second)
		synctest.Wait()
		wantTypes(t, r)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantTypes(t, r, request)
		got := r.all()[0]
		if got.to.Address != netip.MustParseAddr("192.0.2.1") || len(got.to.Hop) != 6 {
			t.Errorf("renewed with %v; want the server", got.to)
		}
		if !got.message.ClientIPAddr.Equal(net.IPv4(192, 0, 2, 10)) || got.message.ServerIdentifier() != nil || got.message.RequestedIPAddress() != nil {
			t.Errorf("renewal %v; want ciaddr alone (RFC 2131, table 4)", got.message.Summary())
		}
		if !r.now().Lease.Expires.After(first.Expires) {
			t.Error("the lease was not extended")
		}
	})
}

func TestSilentServerEndsInRebindingAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		r.use(silent)
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		if r.now().Lease == nil {
			t.Fatal("lost before its end")
		}
		var unicast, broadcast int
		for _, s := range r.all() {
			if s.to.Hop != nil {
				unicast++
			} else {
				broadcast++
			}
		}
		if unicast < 3 || broadcast < 2 || len(r.all()) > 20 {
			t.Errorf("%d to the server, %d to all; want at least 3 and 2, at most 20 in all", unicast, broadcast)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.now().Lease != nil {
			t.Error("the lease lives on after its end")
		}
		if types := r.types(); types[len(types)-1] != discover {
			t.Errorf("sent %v at last; want a DISCOVER", types[len(types)-1])
		}
	})
}

func TestRebindingTakesAnyServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		r.use(func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			if r.sent[len(r.sent)-1].to.Hop != nil {
				return nil // the server is gone; another answers what is sent to all
			}
			return grants(time.Hour)(m)
		})
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if r.now().Lease == nil || time.Until(r.now().Lease.Expires) < 30*time.Minute {
			t.Errorf("lease = %+v; want it extended", r.now().Lease)
		}
	})
}

func TestRefusalLosesTheLeaseAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		r.use(refuses)
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		if r.now().Lease != nil {
			t.Error("the lease lives on after a NAK")
		}
		if n := len(r.all()); n > 30 {
			t.Errorf("%d messages within a minute; want a back-off", n)
		}
	})
}

func TestPreviousAddressIsAskedForFirst(t *testing.T) {
	previous := netip.MustParseAddr("192.0.2.10")
	for _, test := range []struct {
		name   string
		answer func(*dhcpv4.DHCPv4) *dhcpv4.DHCPv4
		keep   bool
		lease  bool
	}{
		{"confirmed", grants(time.Hour), false, true},
		{"refused", refuses, false, false},
		{"no answer", silent, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, test.answer, previous)
				defer r.stop()
				r.carrier <- true
				time.Sleep(10 * time.Second)
				synctest.Wait()
				first := r.all()[0].message
				if first.MessageType() != request || !first.RequestedIPAddress().Equal(previous.AsSlice()) || first.ServerIdentifier() != nil {
					t.Errorf("first message %v; want a REQUEST of %v to all servers", first.Summary(), previous)
				}
				if r.now().Keep != test.keep || (r.now().Lease != nil) != test.lease {
					t.Errorf("status = %+v; want keep %v, lease %v", r.now(), test.keep, test.lease)
				}
			})
		})
	}
}

func TestCarrierThatComesBackAsksAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		r.carrier <- false
		synctest.Wait()
		if r.now().Lease == nil {
			t.Error("the lease went with the carrier")
		}
		time.Sleep(time.Minute)
		r.use(grants(time.Hour))
		r.carrier <- true
		synctest.Wait()
		wantTypes(t, r, request)

		r.carrier <- false
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if r.now().Lease != nil {
			t.Error("the lease outlived its end while the carrier was away")
		}
	})
}

func TestCarrierToldTwiceAsksAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, silent, netip.Addr{})
		defer r.stop()
		r.carrier <- true
		synctest.Wait()
		r.use(grants(time.Hour))
		r.carrier <- true
		synctest.Wait()
		wantTypes(t, r, discover, request)
		r.carrier <- true // with a lease it is no news
		synctest.Wait()
		wantTypes(t, r, discover, request)
	})
}

func TestBrokenLinkIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, grants(time.Hour), netip.Addr{})
		defer r.stop()
		r.mu.Lock()
		r.wire.sendOn = errors.New("network is down")
		r.mu.Unlock()
		r.carrier <- true
		synctest.Wait()
		if r.now().Lease != nil || r.now().Message == "" {
			t.Errorf("status = %+v; want the reason", r.now())
		}
		r.mu.Lock()
		r.wire.sendOn = nil
		r.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if r.now().Lease == nil {
			t.Errorf("status = %+v; want a lease", r.now())
		}
	})
}

func TestAnswersForOthersAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
			reply := grants(time.Hour)(m)
			reply.TransactionID[0]++
			return reply
		}, netip.Addr{})
		defer r.stop()
		r.carrier <- true
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if slices.Contains(r.types(), request) {
			t.Error("an offer of another transaction was taken")
		}
	})
}
