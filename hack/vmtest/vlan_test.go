package vmtest_test

import (
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
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
	id, dir, cable := vmtest.Identity(t), t.TempDir(), newCable(t, untag, tag)
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

	n := vmtest.Start(t, vmtest.Options{File: image, Identity: id, NoUserData: true, Backend: cable.backend(), Extra: cable.arguments("net0")})
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
	cable := newCable(t, untag, tag)
	n := vmtest.Start(t, vmtest.Options{
		Boot: node.Kernel, Backend: cable.backend(), Extra: cable.arguments("net0"),
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

// untag returns a frame of the VLAN without its tag, nil for any other: such a cable carries the frames of one VLAN, untagged on the network's side, and
// the node meets neither a DHCP server nor anything at all outside of the VLAN.
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
