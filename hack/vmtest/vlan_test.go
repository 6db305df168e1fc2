package vmtest_test

import (
	"encoding/base64"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// vlan is the only one that the cable carries.
const vlan = 7

// mtu is what both ways of describing the network ask for.
const mtu = 1400

// Without a DHCP server: address and VLAN from a document on the EFI system partition of a flashed image. The firmware has said that Secure
// Boot is off: without its word the document would be left alone.
func TestStaticFromTheSystemPartition(t *testing.T) {
	vmtest.Parallel(t, 45)
	id, dir, cable := vmtest.Identity(t), t.TempDir(), newCable(t)
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, `---
metadata: {type: Links.network.cosi.dev, id: lan}
spec: {link: {mac: "52:54:00:12:34:56"}, vlan: {name: lan, id: 7}, mtu: 1400}
---
metadata: {type: Addresses.network.cosi.dev, id: lan}
spec: {link: {name: lan}, address: 10.0.2.15/24}
---
metadata: {type: Routes.network.cosi.dev, id: lan}
spec: {link: {name: lan}, gateway: 10.0.2.2}
---
metadata: {type: Resolvers.network.cosi.dev, id: lan}
spec: {servers: [10.0.2.3], search: [lan.example]}
`...)
	image, file := filepath.Join(dir, "flashed.raw"), filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	judged(t, "cp", "--sparse=always", vmtest.Image(t, "base", "raw"), image)
	judged(t, "mcopy", "-i", image+"@@2M", file, "::user-data.yaml")

	n := vmtest.Start(t, vmtest.Options{File: image, Identity: id, NoUserData: true, Backend: cable.backend(), Extra: cable.arguments()})
	n.Ready(t)
	checkStatic(t, n, cable, "lan", "lan", "static", "lan.example")
	if clients, err := n.Client.List(n.Patience(t, moment), n.Kind(t, "dhcpclients")); err != nil || len(clients) > 0 {
		t.Errorf("DHCP clients: %v, %v; want none, because the document describes the network", clients, err)
	}
	n.PressPower(t)
}

// The same from the kernel's arguments, as dracut writes them, with a document among them.
func TestStaticFromTheKernelArguments(t *testing.T) {
	vmtest.Parallel(t, 15)
	cable := newCable(t)
	n := vmtest.Start(t, vmtest.Options{
		Boot: node.Kernel, Backend: cable.backend(), Extra: cable.arguments(),
		CommandLine: "vlan=eth0.7:eth0 ip=10.0.2.15::10.0.2.2:255.255.255.0::eth0.7:none:1400 nameserver=10.0.2.3" +
			" cosi.userdata=data:;base64," + base64.StdEncoding.EncodeToString([]byte(kept("inline"))),
	})
	n.Ready(t)
	checkSource(t, n, "cmdline", "inline", false)
	checkStatic(t, n, cable, "eth0.7-10.0.2.15", "eth0.7", "cmdline") // there is no kernel argument for search domains
}

// checkStatic: the node has the address on the VLAN, with its MTU, name server and search domains, and nobody asked for another.
func checkStatic(t *testing.T, n *vmtest.Node, c *cable, id, link, source string, search ...string) {
	t.Helper()
	var address networkpb.AddressStatus
	n.Get(t, "addressstatuses", id, &address)
	if address.GetAddress() != "10.0.2.15/24" || address.GetLinkName() != link || address.GetSource() != source || !address.GetReady() {
		t.Errorf("the address: %v", &address)
	}
	var status networkpb.LinkStatus
	n.Get(t, "linkstatuses", link, &status)
	if status.GetKind() != "vlan" || !status.GetUp() || !status.GetCarrier() || status.GetMtu() != mtu {
		t.Errorf("the link: %v", &status)
	}
	var resolver networkpb.ResolverStatus
	n.Get(t, "resolverstatuses", "node", &resolver)
	if !slices.Equal(resolver.GetServers(), []string{"10.0.2.3"}) || !slices.Equal(resolver.GetSearch(), search) {
		t.Errorf("the name servers: %v; want 10.0.2.3, searched in %q", &resolver, search)
	}
	if asked := c.dhcp.Load(); asked > 0 {
		t.Errorf("the node sent %d DHCP messages", asked)
	}
	if c.carried.Load() == 0 {
		t.Error("nothing went over the cable: the node is reached in another way")
	}
}

// cable connects the node's NIC with QEMU's user-mode network. It carries the frames of one VLAN, untagged on the network's side, and
// loses all else: the node meets neither a DHCP server nor anything at all outside of the VLAN.
type cable struct {
	dir           string
	carried, dhcp atomic.Int64
}

// Datagram sockets of the cable: QEMU's and, behind each, ours. A datagram is an Ethernet frame.
const (
	nicSocket, nicRelay         = "nic", "nic-relay"
	networkSocket, networkRelay = "net", "net-relay"
)

func newCable(t *testing.T) *cable {
	t.Helper()
	dir, err := os.MkdirTemp("", "cable") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{dir: dir}
	nic, network := c.listen(t, nicRelay), c.listen(t, networkRelay)
	var running sync.WaitGroup
	running.Go(func() { c.relay(nic, network, networkSocket, untag) })
	running.Go(func() { c.relay(network, nic, nicSocket, tag) })
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

// arguments are QEMU's for the cable. A hub connects its other end with the user-mode network "net0".
func (c *cable) arguments() []string {
	socket := func(id, local, remote string) string {
		return "dgram,id=" + id + ",local.type=unix,local.path=" + c.address(local).Name + ",remote.type=unix,remote.path=" + c.address(remote).Name
	}
	return []string{
		"-netdev", socket(c.backend(), nicSocket, nicRelay),
		"-netdev", socket("cable-net", networkSocket, networkRelay),
		"-netdev", "hubport,id=hub-net,hubid=0,netdev=net0",
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

// untag returns a frame of the VLAN without its tag, nil for any other.
func untag(frame []byte) []byte {
	if len(frame) < addresses+4 || binary.BigEndian.Uint16(frame[addresses:]) != typeVLAN || binary.BigEndian.Uint16(frame[addresses+2:])&0xfff != vlan {
		return nil
	}
	return append(append([]byte(nil), frame[:addresses]...), frame[addresses+4:]...)
}

func tag(frame []byte) []byte {
	if len(frame) < addresses {
		return nil
	}
	tagged := append([]byte(nil), frame[:addresses]...)
	tagged = binary.BigEndian.AppendUint16(tagged, typeVLAN)
	tagged = binary.BigEndian.AppendUint16(tagged, vlan)
	return append(tagged, frame[addresses:]...)
}

// asksDHCP reports whether a frame, of whatever VLAN, goes to a DHCP server.
func asksDHCP(frame []byte) bool {
	const udp, server = 17, 67
	at := addresses
	if len(frame) > at+4 && binary.BigEndian.Uint16(frame[at:]) == typeVLAN {
		at += 4
	}
	if len(frame) < at+2+20+4 || binary.BigEndian.Uint16(frame[at:]) != typeIPv4 {
		return false
	}
	ip := frame[at+2:]
	length := int(ip[0]&0xf) * 4
	return ip[9] == udp && len(ip) >= length+4 && binary.BigEndian.Uint16(ip[length+2:]) == server
}

// The cable's own test: what checkStatic relies on.
func TestCableCarriesOneVLAN(t *testing.T) {
	discover := make([]byte, 12+2+20+8)
	binary.BigEndian.PutUint16(discover[12:], typeIPv4)
	discover[14], discover[14+9], discover[14+20+3] = 0x45, 17, 67
	if untag(discover) != nil {
		t.Error("an untagged frame is carried")
	}
	tagged := tag(discover)
	if got := untag(tagged); string(got) != string(discover) {
		t.Errorf("untag(tag(frame)) = %x", got)
	}
	if !asksDHCP(discover) || !asksDHCP(tagged) {
		t.Error("a DHCP message is not recognised")
	}
	tagged[15]++
	if untag(tagged) != nil {
		t.Error("a frame of another VLAN is carried")
	}
}
