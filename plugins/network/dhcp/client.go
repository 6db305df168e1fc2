// Package dhcp holds an IPv4 address on one link by DHCP (RFC 2131, with the classless routes of RFC 3442 and the search list of
// RFC 3397).
//
// The network plugin runs one Client a link. A Client only talks: it sets no address, it reports what it was granted, and what it
// reports has been checked. It asks at the moment the link has a carrier, with none of the RFC's waits at the start, and between
// exchanges it holds no socket and wakes for nothing but its timers.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Status is what a Client reports.
type Status struct {
	// Lease is nil while there is none.
	Lease *Lease
	// Keep says that Previous has been neither confirmed nor refused: whoever set it leaves it where it is.
	Keep bool
	// Message says, while there is no lease, what was tried and when the next try is.
	Message string
}

// Client is the state machine of one link.
//
//	          carrier, no address known         carrier, address known
//	  ┌─────────────────────────── down ◄──────────────────────────┐ carrier lost,
//	  │                               └───────────┐                │ in any state
//	  ▼              NAK, no answer               ▼                │
//	selecting ◄───────────┬─────────────────── rebooting           │
//	  │ OFFER             │                       │ ACK            │
//	  ▼                   │                       ▼                │
//	requesting ───────────┘ ─────── ACK ───────► bound ────────────┘
//	                                            ▲   │ T1
//	                                        ACK │   ▼
//	selecting ◄── NAK, lease expired ────────── renewing ── T2 ──► rebinding (as renewing, to all servers)
type Client struct {
	// MAC is the link's hardware address.
	MAC net.HardwareAddr
	// Open opens the link's socket, for one exchange.
	Open func() (Conn, error)
	// Carrier delivers each change. The link has none until it says so. To be told again of a carrier during an exchange is to be
	// told to ask again at once.
	Carrier <-chan bool
	// Previous is an address that the link still has from an earlier lease, if any. It is asked for first.
	Previous netip.Addr
	// Changed is called with each new status, by the goroutine that runs Run.
	Changed func(Status)

	status  Status
	carrier bool
	refused int // NAKs in a row
	session *session
	xid     dhcpv4.TransactionID
	offer   *dhcpv4.DHCPv4
}

// state is what a Client does next. It returns the state after it, or nil when ctx is done.
type state func(context.Context) state

var (
	errSilence = errors.New("no answer")
	errCarrier = errors.New("no carrier")
)

const (
	firstWait, lastWait = time.Second, 64 * time.Second
	requestTries        = 4
	rebootTries         = 2
	// minRenewWait is the RFC's least time between two tries to renew.
	minRenewWait = 60 * time.Second
)

// Run drives the machine until ctx is done. The lease is not given back: the address is the link's after a restart too.
func (c *Client) Run(ctx context.Context) {
	c.status = Status{Keep: c.Previous.IsValid()}
	for next := c.down; next != nil; {
		next = next(ctx)
	}
	c.hush()
}

// down waits for a carrier. A lease goes on meanwhile, to its end.
func (c *Client) down(ctx context.Context) state {
	c.hush()
	select {
	case c.carrier = <-c.Carrier:
	default:
	}
	if !c.carrier && c.status.Lease == nil {
		c.report("no carrier")
	}
	for !c.carrier {
		var expired <-chan time.Time
		if l := c.status.Lease; l != nil && !l.Expires.IsZero() {
			expired = time.After(time.Until(l.Expires))
		}
		select {
		case <-ctx.Done():
			return nil
		case c.carrier = <-c.Carrier:
		case <-expired:
			c.lose("no carrier; the lease has expired")
		}
	}
	if c.known().IsValid() {
		return c.rebooting
	}
	return c.selecting
}

// known is the address that the link has or may have.
func (c *Client) known() netip.Addr {
	switch {
	case c.status.Lease != nil:
		return c.status.Lease.Address.Addr()
	case c.status.Keep:
		return c.Previous
	}
	return netip.Addr{}
}

// rebooting asks whether the known address is still ours. Silence is no answer: the server may have forgotten us.
func (c *Client) rebooting(ctx context.Context) state {
	c.newTransaction()
	request := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.known().AsSlice())))
	for try := range rebootTries {
		answer, err := c.ask(ctx, request, Peer{}, backoff(try), verdict)
		if err == nil {
			return c.decided(answer)
		}
		if next, stop := c.interrupted(err); stop {
			return next
		}
	}
	return c.selecting
}

// selecting asks all servers for an address until one offers it.
func (c *Client) selecting(ctx context.Context) state {
	if c.refused > 1 { // a server that offers and refuses in turn would keep us busy
		if err := c.pause(ctx, backoff(c.refused)); err != nil {
			next, _ := c.interrupted(err)
			return next
		}
	}
	c.newTransaction()
	discover := c.message(dhcpv4.MessageTypeDiscover)
	for try := 0; ; try++ {
		if l := c.status.Lease; l != nil && l.expired(time.Now()) {
			c.lose("the lease has expired")
		}
		wait := backoff(try)
		if try > 0 && c.status.Lease == nil {
			c.report(fmt.Sprintf("no offer from a DHCP server after %d tries; the next in %v", try, wait.Round(time.Second)))
		}
		offer, err := c.ask(ctx, discover, Peer{}, wait, isOffer)
		if err == nil {
			c.offer = offer.message
			return c.requesting
		}
		if next, stop := c.interrupted(err); stop {
			return next
		}
	}
}

// requesting takes the offer.
func (c *Client) requesting(ctx context.Context) state {
	request := c.message(dhcpv4.MessageTypeRequest,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(c.offer.ServerIdentifier())))
	for try := range requestTries {
		answer, err := c.ask(ctx, request, Peer{}, backoff(try), verdict)
		if err == nil {
			return c.decided(answer)
		}
		if next, stop := c.interrupted(err); stop {
			return next
		}
	}
	return c.selecting
}

// bound holds the lease until T1.
func (c *Client) bound(ctx context.Context) state {
	c.hush()
	l := c.status.Lease
	wait := infinite
	if !l.Expires.IsZero() {
		wait = time.Until(l.Renew)
	}
	if err := c.pause(ctx, wait); err != nil {
		next, _ := c.interrupted(err)
		return next
	}
	return func(ctx context.Context) state {
		return c.extend(ctx, Peer{l.Server, l.hop}, l.Rebind, c.rebinding)
	}
}

// rebinding asks all servers to extend the lease until it ends.
func (c *Client) rebinding(ctx context.Context) state {
	return c.extend(ctx, Peer{}, c.status.Lease.Expires, func(context.Context) state {
		c.lose("the lease has expired")
		return c.selecting
	})
}

// extend asks to for more time until the deadline, and then goes on with after.
func (c *Client) extend(ctx context.Context, to Peer, deadline time.Time, after state) state {
	c.newTransaction()
	request := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(c.known().AsSlice()))
	for left := time.Until(deadline); left > 0; left = time.Until(deadline) {
		answer, err := c.ask(ctx, request, to, min(left, max(left/2, minRenewWait)), verdict)
		if err == nil {
			return c.decided(answer)
		}
		if next, stop := c.interrupted(err); stop {
			return next
		}
	}
	return after
}

// decided takes an ACK or a NAK.
func (c *Client) decided(a answer) state {
	if a.message.MessageType() == dhcpv4.MessageTypeNak {
		c.refused++
		c.lose(fmt.Sprintf("the server %v refused the address: %q", a.message.ServerIdentifier(), a.message.Message()))
		return c.selecting
	}
	c.refused = 0
	c.status = Status{Lease: a.lease}
	c.Changed(c.status)
	return c.bound
}

// interrupted tells an exchange that is over from one that only had no answer.
func (c *Client) interrupted(err error) (next state, stop bool) {
	switch {
	case errors.Is(err, errSilence):
		return nil, false
	case errors.Is(err, errCarrier):
		return c.down, true
	}
	return nil, true
}

// lose gives up the address that is known.
func (c *Client) lose(why string) {
	c.status = Status{}
	c.report(why)
}

func (c *Client) report(message string) {
	c.status.Message = message
	c.Changed(c.status)
}

// backoff is how long to wait for an answer to a try, the first being 0: 1 s, doubling to 64 s, a quarter more or less.
func backoff(try int) time.Duration {
	wait := min(firstWait<<min(try, 6), lastWait)
	return wait*3/4 + rand.N(wait/2)
}

// session is an open socket and the goroutine that reads it.
type session struct {
	conn    Conn
	done    chan struct{}
	answers chan answer
	reader  sync.WaitGroup
}

// answer is a message that came, and the lease in it if it is an offer or an ACK.
type answer struct {
	message *dhcpv4.DHCPv4
	lease   *Lease
}
