package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Conn carries DHCP messages on one link.
type Conn interface {
	// Send sends a message to the server's port of a host, or of all hosts if to is the zero value.
	Send(message []byte, from netip.Addr, to Peer) error
	// Receive returns the next message for the client's port and the neighbour it came from. It ends with an error after Close.
	Receive() (message []byte, hop net.HardwareAddr, err error)
	Close() error
}

// Peer is where a message goes: an address, behind a neighbour.
type Peer struct {
	Address netip.Addr
	Hop     net.HardwareAddr
}

const (
	clientPort, serverPort = 68, 67
	ipHeader, udpHeader    = 20, 8
	protocolUDP            = 17
	timeToLive             = 64
)

var errPacket = errors.New("not a DHCP packet")

// PacketConn is a Conn over a packet socket. It needs CAP_NET_RAW.
//
// A packet socket works before the link has an address, and renewing over it too means that no UDP port is open on the node at any
// time. The price is that the kernel answers the server's renewal with "port unreachable", which servers ignore.
type PacketConn struct {
	file  *os.File
	index int
	buf   [2048]byte // of the one goroutine that receives
}

// Listen opens a packet socket on a link. It is closed to everything but UDP for the client's port before it is bound.
func Listen(index int) (*PacketConn, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, clientFilter()); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &PacketConn{file: os.NewFile(uintptr(fd), "packet"), index: index}, nil
}

// clientFilter accepts unfragmented UDP for port 68. The packet begins with the IP header.
func clientFilter() *unix.SockFprog {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9}, // protocol
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: protocolUDP, Jf: 6},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 6}, // flags and fragment offset
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: 4},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // length of the header
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2},  // destination port
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: clientPort, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
}

// Send implements Conn.
func (c *PacketConn) Send(message []byte, from netip.Addr, to Peer) error {
	hop := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	address := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if len(to.Hop) == len(hop) {
		hop, address = to.Hop, to.Address
	}
	destination := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: c.index, Halen: uint8(len(hop))}
	copy(destination.Addr[:], hop)
	packet := encodePacket(message, from, address)

	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), packet, 0, destination)
		return sendErr != unix.EAGAIN
	})
	return errors.Join(err, os.NewSyscallError("sendto", sendErr))
}

// Receive implements Conn.
func (c *PacketConn) Receive() ([]byte, net.HardwareAddr, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	for {
		var n int
		var from unix.Sockaddr
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, recvErr = unix.Recvfrom(int(fd), c.buf[:], 0)
			return recvErr != unix.EAGAIN && recvErr != unix.EINTR
		})
		if err := errors.Join(err, recvErr); err != nil {
			return nil, nil, fmt.Errorf("recvfrom: %w", err)
		}
		message, err := decodePacket(c.buf[:n])
		if err != nil {
			continue
		}
		var hop net.HardwareAddr
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Halen == 6 {
			hop = append(hop, ll.Addr[:6]...)
		}
		return message, hop, nil
	}
}

// Close implements Conn.
func (c *PacketConn) Close() error { return c.file.Close() }

// encodePacket puts the IP and UDP headers before a message.
func encodePacket(message []byte, from, to netip.Addr) []byte {
	if !from.IsValid() {
		from = netip.IPv4Unspecified()
	}
	p := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(message))
	p[0] = 0x45 // version 4, five words
	binary.BigEndian.PutUint16(p[2:], uint16(ipHeader+udpHeader+len(message)))
	p[8], p[9] = timeToLive, protocolUDP
	source, destination := from.As4(), to.As4()
	copy(p[12:], source[:])
	copy(p[16:], destination[:])
	binary.BigEndian.PutUint16(p[10:], checksum(p[:ipHeader], 0))

	udp := p[ipHeader:]
	binary.BigEndian.PutUint16(udp[0:], clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	length := uint16(udpHeader + len(message))
	binary.BigEndian.PutUint16(udp[4:], length)
	p = append(p, message...)
	sum := checksum(p[ipHeader:], pseudoHeader(p, length))
	if sum == 0 {
		sum = 0xffff // 0 says that there is no checksum
	}
	binary.BigEndian.PutUint16(p[ipHeader+6:], sum)
	return p
}

// decodePacket returns the message of a UDP packet for the client's port. It does not look at the UDP checksum: a packet from a
// server on the same machine has none yet, because the network card was to fill it in.
func decodePacket(p []byte) ([]byte, error) {
	if len(p) < ipHeader || p[0]>>4 != 4 {
		return nil, errPacket
	}
	header, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if header < ipHeader || total > len(p) || total < header+udpHeader || p[9] != protocolUDP {
		return nil, errPacket
	}
	udp := p[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) || binary.BigEndian.Uint16(udp[2:]) != clientPort {
		return nil, errPacket
	}
	return udp[udpHeader:length], nil
}

// pseudoHeader sums what the UDP checksum covers of the IP header.
func pseudoHeader(p []byte, length uint16) uint32 {
	sum := uint32(protocolUDP) + uint32(length)
	for i := 12; i < ipHeader; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	return sum
}

// checksum is the Internet checksum of b, beginning with sum.
func checksum(b []byte, sum uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// networkOrder returns v as the kernel wants it in a sockaddr_ll.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
