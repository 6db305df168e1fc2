package vmtest_test

import (
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// cable connects a NIC of the node with one of QEMU's networks, and changes what it carries.
type cable struct {
	dir           string
	carried, dhcp atomic.Int64
}

// Datagram sockets of the cable: QEMU's and, behind each, ours. A datagram is an Ethernet frame.
const (
	nicSocket, nicRelay         = "nic", "nic-relay"
	networkSocket, networkRelay = "net", "net-relay"
)

// newCable returns a cable on which out and in say what becomes of a frame from the node and of one to it; nil is lost.
func newCable(t *testing.T, out, in func(frame []byte) []byte) *cable {
	t.Helper()
	dir, err := os.MkdirTemp("", "cable") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{dir: dir}
	nic, network := c.listen(t, nicRelay), c.listen(t, networkRelay)
	var running sync.WaitGroup
	running.Go(func() { c.relay(nic, network, networkSocket, out) })
	running.Go(func() { c.relay(network, nic, nicSocket, in) })
	t.Cleanup(func() {
		nic.Close()
		network.Close()
		running.Wait()
		os.RemoveAll(dir)
	})
	return c
}

func (c *cable) listen(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", c.address(name))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (c *cable) address(name string) *net.UnixAddr {
	return &net.UnixAddr{Name: filepath.Join(c.dir, name), Net: "unixgram"}
}

// backend is the netdev of the NIC.
func (*cable) backend() string { return "cable-nic" }

// arguments are QEMU's for the cable. A hub connects its other end with a netdev.
func (c *cable) arguments(network string) []string {
	socket := func(id, local, remote string) string {
		return "dgram,id=" + id + ",local.type=unix,local.path=" + c.address(local).Name + ",remote.type=unix,remote.path=" + c.address(remote).Name
	}
	return []string{
		"-netdev", socket(c.backend(), nicSocket, nicRelay),
		"-netdev", socket("cable-net", networkSocket, networkRelay),
		"-netdev", "hubport,id=hub-net,hubid=0,netdev=" + network,
		"-netdev", "hubport,id=hub-cable,hubid=0,netdev=cable-net",
	}
}

// relay carries frames until a socket is closed.
func (c *cable) relay(from, through *net.UnixConn, to string, change func([]byte) []byte) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if asksDHCP(buffer[:n]) {
			c.dhcp.Add(1)
		}
		if frame := change(buffer[:n]); frame != nil {
			c.carried.Add(1)
			// A cable loses frames while the other end is not there yet.
			_, _ = through.WriteToUnix(frame, c.address(to))
		}
	}
}

// Ethernet: addresses, then the type; a VLAN tag stands in front of the type.
const (
	addresses = 12
	typeVLAN  = 0x8100
	typeIPv4  = 0x0800
)

// asksDHCP reports whether a frame, of whatever VLAN, goes to a DHCP server.
func asksDHCP(frame []byte) bool {
	datagram := udp(frame)
	return datagram != nil && binary.BigEndian.Uint16(datagram[2:]) == dhcpv4.ServerPort
}

// udp returns what a frame, of whatever VLAN, has of UDP: the header (ports from and to, length, checksum: 8 bytes) and what is behind it. Without, it is nil.
func udp(frame []byte) []byte {
	const protocol, head = 17, 8
	at := addresses
	if len(frame) > at+4 && binary.BigEndian.Uint16(frame[at:]) == typeVLAN {
		at += 4
	}
	if len(frame) < at+2+20 || binary.BigEndian.Uint16(frame[at:]) != typeIPv4 {
		return nil
	}
	ip := frame[at+2:]
	length := int(ip[0]&0xf) * 4
	if ip[9] != protocol || len(ip) < length+head {
		return nil
	}
	return ip[length:]
}
