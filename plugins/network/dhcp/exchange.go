package dhcp

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// newTransaction draws the number that answers must carry.
func (c *Client) newTransaction() {
	rand.Read(c.xid[:]) // never fails: see crypto/rand
}

// message is a message of the present transaction.
func (c *Client) message(typ dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	options := []dhcpv4.Modifier{
		dhcpv4.WithTransactionID(c.xid),
		dhcpv4.WithHwAddr(c.MAC),
		dhcpv4.WithMessageType(typ),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1500)),
		dhcpv4.WithRequestedOptions(
			dhcpv4.OptionClasslessStaticRoute, // before the router: RFC 3442
			dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName,
			dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionInterfaceMTU,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue),
	}
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, Options: make(dhcpv4.Options)}
	for _, modify := range append(options, more...) {
		modify(m)
	}
	return m
}

// verdict and isOffer choose among the answers of a transaction.
func verdict(a answer) bool {
	return a.message.MessageType() == dhcpv4.MessageTypeAck || a.message.MessageType() == dhcpv4.MessageTypeNak
}

func isOffer(a answer) bool { return a.message.MessageType() == dhcpv4.MessageTypeOffer }

// ask sends m once and waits for an answer that want takes. It fails with errSilence after the wait, with errCarrier when the link
// loses its carrier, with errSilence also when it is told again of the carrier, and with ctx's error. A message that could not be sent counts as not answered.
func (c *Client) ask(ctx context.Context, m *dhcpv4.DHCPv4, to Peer, wait time.Duration, want func(answer) bool) (answer, error) {
	var answers <-chan answer
	if err := c.send(m, to); err == nil {
		answers = c.session.answers
	} else if c.status.Lease == nil {
		c.report(err.Error())
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return answer{}, ctx.Err()
		case c.carrier = <-c.Carrier:
			if !c.carrier {
				return answer{}, errCarrier
			}
			return answer{}, errSilence
		case <-timer.C:
			return answer{}, errSilence
		case a, open := <-answers:
			if !open { // the link went down under the socket; the next try opens another
				c.hush()
				answers = nil
			} else if a.message.TransactionID == c.xid && want(a) {
				return a, nil
			}
		}
	}
}

// pause waits, with ask's errors, and nil after the wait.
func (c *Client) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c.carrier = <-c.Carrier:
			if !c.carrier {
				return errCarrier
			}
		case <-timer.C:
			return nil
		}
	}
}

func (c *Client) send(m *dhcpv4.DHCPv4, to Peer) error {
	if c.session == nil {
		conn, err := c.Open()
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		c.session = listen(conn, c.MAC)
	}
	var from netip.Addr
	if m.ClientIPAddr != nil && !m.ClientIPAddr.IsUnspecified() {
		from, _ = netip.AddrFromSlice(m.ClientIPAddr.To4())
	}
	if err := c.session.conn.Send(m.ToBytes(), from, to); err != nil {
		return fmt.Errorf("send %v: %w", m.MessageType(), err)
	}
	return nil
}

// hush closes the socket.
func (c *Client) hush() {
	if c.session == nil {
		return
	}
	close(c.session.done)
	c.session.conn.Close()
	c.session.reader.Wait()
	c.session = nil
}

// listen starts the goroutine that reads conn until it is closed or broken.
func listen(conn Conn, mac net.HardwareAddr) *session {
	s := &session{conn: conn, done: make(chan struct{}), answers: make(chan answer)}
	s.reader.Go(func() {
		defer close(s.answers)
		for {
			message, hop, err := conn.Receive()
			if err != nil {
				return
			}
			a, err := parseAnswer(message, hop, mac, time.Now())
			if err != nil {
				continue
			}
			select {
			case s.answers <- a:
			case <-s.done:
				return
			}
		}
	})
	return s
}

// parseAnswer reads a message for the client with the hardware address mac. An offer or ACK that is no lease is an error, so that a
// server that sends it counts as silent.
func parseAnswer(message []byte, hop, mac net.HardwareAddr, now time.Time) (answer, error) {
	m, err := dhcpv4.FromBytes(message)
	if err != nil {
		return answer{}, err
	}
	if m.OpCode != dhcpv4.OpcodeBootReply || !bytes.Equal(m.ClientHWAddr, mac) {
		return answer{}, errPacket
	}
	a := answer{message: m}
	switch m.MessageType() {
	case dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck:
		if a.lease, err = parseLease(m, now); err != nil {
			return answer{}, err
		}
		a.lease.hop = hop
	}
	return a, nil
}
