// Package dhcp tells firmware over DHCP (RFC 2131) what to boot: beside a DHCP server that is there (proxyDHCP, from Intel's PXE specification
// 2.1), or as the DHCP server.
//
// It recognises who asks by the client's class, its architecture (RFC 4578) and iPXE's user class; what each is to boot, its owner says. A packet is
// answered or not, one after the other; nothing that comes in stops it.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/sys/unix"
)

// BootPort is where firmware asks a proxy for what it was offered, and for nothing else.
const BootPort = 4011

// Config is what a server is made of.
type Config struct {
	Interface string
	Address   netip.Prefix // the server's own, with its network
	// Boot says what a client boots: a file by TFTP, a URL for UEFIHTTP and IPXE. ok is false if it has nothing for it.
	Boot func(c Client) (file string, ok bool)
	// Leased is told which address a client has taken, if the server gives addresses.
	Leased func(mac net.HardwareAddr, address netip.Addr)
	Log    func(format string, args ...any)

	// Pool makes it a DHCP server; without, it is a proxy.
	Pool   *Range
	Leases string       // the file that keeps what was given
	Router netip.Addr   // for the clients, if there is one
	DNS    []netip.Addr // likewise
}

// Server answers DHCP.
type Server struct {
	Config
	pool  *pool // nil: it is a proxy
	conns []*net.UDPConn
}

// Listen binds the ports: 67, and 4011 for a proxy. It takes CAP_NET_BIND_SERVICE for port 67.
func Listen(c Config) (*Server, error) {
	s := &Server{Config: c}
	ports := []int{dhcpv4.ServerPort}
	if c.Pool == nil {
		ports = append(ports, BootPort)
	} else {
		var err error
		if s.pool, err = openPool(*c.Pool, c.Address.Addr(), c.Leases, time.Now); err != nil {
			return nil, fmt.Errorf("leases: %w", err)
		}
	}
	for _, port := range ports {
		// Bound to the interface and to no address: what is broadcast is to be heard.
		conn, err := server4.NewIPv4UDPConn(c.Interface, &net.UDPAddr{Port: port})
		if err != nil {
			s.close()
			return nil, fmt.Errorf("dhcp: %s port %d: %w", c.Interface, port, errno(err))
		}
		s.conns = append(s.conns, conn)
	}
	return s, nil
}

// errno is the kernel's error that err ends with: server4 passes on its text alone.
func errno(err error) error {
	for _, known := range []unix.Errno{unix.EACCES, unix.EPERM, unix.EADDRINUSE, unix.ENODEV} {
		if strings.HasSuffix(err.Error(), known.Error()) {
			return known
		}
	}
	return err
}

func (s *Server) close() {
	for _, c := range s.conns {
		c.Close()
	}
}

// Serve answers until ctx ends, or a socket fails. The sockets are closed then.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, s.close)()
	type packet struct {
		m    *dhcpv4.DHCPv4
		from *net.UDPConn
		peer netip.AddrPort
	}
	packets, failed := make(chan packet), make(chan error, len(s.conns))
	for _, conn := range s.conns {
		go func() {
			failed <- read(ctx, conn, func(m *dhcpv4.DHCPv4, peer netip.AddrPort) {
				select {
				case packets <- packet{m, conn, peer}:
				case <-ctx.Done():
				}
			})
		}()
	}
	var first error
	for left := len(s.conns); left > 0; {
		select {
		case p := <-packets:
			port := p.from.LocalAddr().(*net.UDPAddr).Port
			if reply := s.answer(p.m, port); reply != nil {
				if _, err := p.from.WriteToUDPAddrPort(reply.ToBytes(), destination(reply, port, p.peer)); err != nil {
					s.Log("dhcp: %s: %v", p.m.ClientHWAddr, err)
				}
			}
		case err := <-failed:
			left--
			first = errors.Join(first, err)
			cancel()
		}
	}
	return first
}

// read hands over what comes in, if it is a request of DHCP, until conn is closed. It fails if ctx has not ended by then.
func read(ctx context.Context, conn *net.UDPConn, request func(*dhcpv4.DHCPv4, netip.AddrPort)) error {
	buffer := make([]byte, 4096)
	for {
		n, peer, err := conn.ReadFromUDPAddrPort(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("dhcp: %w", err)
		}
		if err != nil {
			continue // a client that has gone
		}
		if m := parse(buffer[:n]); m != nil {
			request(m, peer)
		}
	}
}

// parse returns nil for what is no request from a machine on an Ethernet.
func parse(packet []byte) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.FromBytes(packet)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || len(m.ClientHWAddr) != 6 {
		return nil
	}
	return m
}

// destination is where a reply goes. Most clients have no address yet; all of them hear what is broadcast.
func destination(reply *dhcpv4.DHCPv4, port int, peer netip.AddrPort) netip.AddrPort {
	relay, _ := netip.AddrFromSlice(reply.GatewayIPAddr.To4())
	client, _ := netip.AddrFromSlice(reply.ClientIPAddr.To4())
	switch {
	case port == BootPort:
		return peer
	case relay.IsValid() && !relay.IsUnspecified():
		return netip.AddrPortFrom(relay, dhcpv4.ServerPort)
	case client.IsValid() && !client.IsUnspecified() && reply.MessageType() == dhcpv4.MessageTypeAck:
		return netip.AddrPortFrom(client, dhcpv4.ClientPort)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ClientPort)
}

// answer returns the reply to a request that came in on a port, nil if there is none.
func (s *Server) answer(m *dhcpv4.DHCPv4, port int) *dhcpv4.DHCPv4 {
	client := clientOf(m)
	if s.pool == nil {
		return s.proxied(m, client, port)
	}
	return s.given(m, client)
}

// proxied answers beside the DHCP server that gives the client its address.
func (s *Server) proxied(m *dhcpv4.DHCPv4, client Client, port int) *dhcpv4.DHCPv4 {
	kind := dhcpv4.MessageTypeOffer
	switch {
	case client.Firmware == Unknown:
		return nil
	case port == dhcpv4.ServerPort && m.MessageType() == dhcpv4.MessageTypeDiscover:
	case port == BootPort && m.MessageType() == dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
	default:
		return nil
	}
	file, ok := s.Boot(client)
	if !ok {
		return nil
	}
	reply := s.reply(m, kind)
	s.boot(reply, m, client, file)
	if client.Firmware == BIOS || client.Firmware == IPXE {
		// Discovery control 8: take the file that is named here, and look for no other server. UEFI would then take no notice of a proxy in
		// some versions; without, it asks on BootPort for what it was offered.
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	}
	return reply
}

// given answers as the server that gives addresses.
func (s *Server) given(m *dhcpv4.DHCPv4, client Client) *dhcpv4.DHCPv4 {
	mac := client.MAC.String()
	if relay := m.GatewayIPAddr; relay != nil && !relay.IsUnspecified() {
		return nil // another network, whose addresses are not ours to give
	}
	if other := m.ServerIdentifier(); other != nil && !other.IsUnspecified() && !other.Equal(s.ip()) {
		return nil // the client has chosen another server
	}
	wish, _ := netip.AddrFromSlice(m.RequestedIPAddress().To4())
	has, _ := netip.AddrFromSlice(m.ClientIPAddr.To4())
	var reply *dhcpv4.DHCPv4
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		address, ok := s.pool.offer(mac, wish)
		if !ok {
			s.Log("dhcp: %s gets no address: all of %s-%s are taken", mac, s.Pool.First, s.Pool.Last)
			return nil
		}
		reply = s.reply(m, dhcpv4.MessageTypeOffer)
		reply.YourIPAddr = address.AsSlice()
	case dhcpv4.MessageTypeRequest:
		if !wish.IsValid() {
			wish = has
		}
		ok, err := s.pool.take(mac, wish)
		if err != nil {
			s.Log("dhcp: leases: %v", err)
		}
		if !ok {
			return s.reply(m, dhcpv4.MessageTypeNak)
		}
		s.Leased(client.MAC, wish)
		reply = s.reply(m, dhcpv4.MessageTypeAck)
		reply.YourIPAddr = wish.AsSlice()
	case dhcpv4.MessageTypeInform:
		reply = s.reply(m, dhcpv4.MessageTypeAck)
	case dhcpv4.MessageTypeRelease:
		s.pool.release(mac)
		return nil
	case dhcpv4.MessageTypeDecline:
		s.pool.decline(mac, wish)
		return nil
	default:
		return nil
	}
	s.describe(reply, m.MessageType() != dhcpv4.MessageTypeInform)
	if client.Firmware != Unknown {
		if file, ok := s.Boot(client); ok {
			s.boot(reply, m, client, file)
		}
	}
	return reply
}

func (s *Server) ip() net.IP { return s.Address.Addr().AsSlice() }

// reply is an answer with nothing in it.
func (s *Server) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.ip())))
	if err != nil {
		panic(err) // of a random number: one is drawn, and the request's is put in its place
	}
	if kind == dhcpv4.MessageTypeAck {
		reply.ClientIPAddr = m.ClientIPAddr
	}
	return reply
}

// describe says what the network is like, and how long the address is the client's.
func (s *Server) describe(reply *dhcpv4.DHCPv4, leased bool) {
	reply.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(s.Address.Bits(), 32)))
	if leased {
		reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
	}
	if s.Router.IsValid() {
		reply.UpdateOption(dhcpv4.OptRouter(s.Router.AsSlice()))
	}
	var servers []net.IP
	for _, a := range s.DNS {
		servers = append(servers, a.AsSlice())
	}
	if len(servers) > 0 {
		reply.UpdateOption(dhcpv4.OptDNS(servers...))
	}
}

// boot says what to boot: in the fields that BOOTP has for it, where they are long enough, and in the options that stand for them.
func (s *Server) boot(reply, request *dhcpv4.DHCPv4, client Client, file string) {
	class := classPXE
	if client.Firmware == UEFIHTTP {
		class = classHTTP
	}
	reply.UpdateOption(dhcpv4.OptClassIdentifier(class))
	reply.UpdateOption(dhcpv4.OptBootFileName(file))
	if id := request.Options.Get(dhcpv4.OptionClientMachineIdentifier); id != nil {
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
	reply.ServerIPAddr = s.ip() // without, iPXE takes no notice of a proxy's URL either
	if strings.Contains(file, "://") {
		return
	}
	reply.ServerHostName, reply.BootFileName = s.Address.Addr().String(), file
	reply.UpdateOption(dhcpv4.OptTFTPServerName(s.Address.Addr().String()))
}
