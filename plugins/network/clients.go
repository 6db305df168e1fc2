package network

import (
	"context"
	"log"
	"maps"
	"net"
	"net/netip"
	"sync"

	"github.com/cosi-os/cosi/plugins/network/dhcp"
)

// clients runs a DHCP client on each link that is to have one. A pass says which; run owns the goroutines.
type clients struct {
	changed chan struct{} // holds one: wanted is not what runs

	mu     sync.Mutex // guards the fields below
	wanted map[int]clientLink
	status map[int]dhcp.Status
}

// clientLink is what a client must know of its link. With another hardware address it is another link.
type clientLink struct {
	mac              string
	carrier, running bool
	// previous is the address that the link had from an earlier lease when it got the client.
	previous netip.Addr
}

func newClients() *clients {
	return &clients{changed: make(chan struct{}, 1), wanted: map[int]clientLink{}, status: map[int]dhcp.Status{}}
}

// want says which links are to have a client, by their indexes. It does not wait.
func (c *clients) want(links map[int]clientLink) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := map[int]clientLink{}
	for index, link := range links {
		if before, ok := c.wanted[index]; ok && before.mac == link.mac {
			link.previous = before.previous
		} else {
			c.status[index] = dhcp.Status{Keep: link.previous.IsValid()}
		}
		wanted[index] = link
	}
	for index := range c.wanted {
		if _, ok := wanted[index]; !ok {
			delete(c.status, index)
		}
	}
	if maps.Equal(c.wanted, wanted) {
		return
	}
	c.wanted = wanted
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// of returns the status of a link's client.
func (c *clients) of(index int) dhcp.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status[index]
}

// runningClient is a client and the way to stop it.
type runningClient struct {
	clientLink
	carriers chan bool // holds the latest
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// run runs the clients until ctx is done, and calls wake when a status has changed. The leases are kept for the next run.
func (c *clients) run(ctx context.Context, wake func()) {
	running := map[int]*runningClient{}
	defer func() {
		for _, r := range running {
			r.stop()
			r.done.Wait()
		}
	}()
	for {
		c.mu.Lock()
		wanted := maps.Clone(c.wanted)
		c.mu.Unlock()
		for index, r := range running {
			if wanted[index].mac != r.mac {
				r.stop()
				r.done.Wait()
				delete(running, index)
			}
		}
		for index, link := range wanted {
			r, ok := running[index]
			if !ok {
				r = c.start(ctx, index, link, wake)
				running[index] = r
			}
			r.setCarrier(link)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
	}
}

func (c *clients) start(ctx context.Context, index int, link clientLink, wake func()) *runningClient {
	ctx, stop := context.WithCancel(ctx)
	r := &runningClient{clientLink: clientLink{mac: link.mac}, carriers: make(chan bool, 1), stop: stop}
	mac, err := net.ParseMAC(link.mac)
	if err != nil {
		log.Printf("DHCP: link %d: %v", index, err)
		return r
	}
	if lease := c.of(index).Lease; lease != nil { // of an earlier run
		link.previous = lease.Address.Addr()
	}
	client := &dhcp.Client{
		MAC:      mac,
		Open:     func() (dhcp.Conn, error) { return dhcp.Listen(index) },
		Carrier:  r.carriers,
		Previous: link.previous,
		Changed: func(s dhcp.Status) {
			c.mu.Lock()
			if c.wanted[index].mac == link.mac {
				c.status[index] = s
			}
			c.mu.Unlock()
			wake()
		},
	}
	r.done.Go(func() { client.Run(ctx) })
	return r
}

// setCarrier tells the client, which hears only of the last change. To hear twice of a carrier has it ask again at once: what it sent
// before the link was running may have been lost.
func (r *runningClient) setCarrier(link clientLink) {
	if r.carrier == link.carrier && (r.running == link.running || !link.running) {
		r.running = link.running
		return
	}
	r.carrier, r.running = link.carrier, link.running
	select {
	case <-r.carriers:
	default:
	}
	r.carriers <- link.carrier
}
