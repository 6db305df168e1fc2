package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/hack/netnstest"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/nettest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var mac = net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 1}

// config is a server that tells each client what it is.
func config(t testing.TB) Config {
	return Config{
		Interface: "server", Address: nettest.Address, Log: t.Logf, Leased: func(net.HardwareAddr, netip.Addr) {},
		Leases: filepath.Join(t.TempDir(), "leases.json"), Router: netip.MustParseAddr("192.0.2.254"), DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
		Boot: func(c Client) (string, bool) {
			switch c.Firmware {
			case UEFIHTTP, IPXE:
				return fmt.Sprintf("http://192.0.2.1/%s/%v/%s", c.MAC, c.BIOS, c.Arch), true
			}
			return c.MAC.String() + "/" + string(c.Firmware) + "/" + c.Arch, c.MAC[5] != 99
		},
	}
}

// firmware is what clients of a kind say.
func firmware(class string, arch iana.Arch, more ...dhcpv4.Modifier) []dhcpv4.Modifier {
	return append([]dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class + ":Arch:00000:UNDI:003000")), dhcpv4.WithOption(dhcpv4.OptClientArch(arch)),
		dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, "0123456789abcdef"...)),
	}, more...)
}

func message(t testing.TB, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Each kind of client is told what is for it, by a proxy and by a server, and what is none of them is told nothing by a proxy.
func TestEachFirmwareIsToldWhatIsForIt(t *testing.T) {
	rfc := dhcpv4.WithOption(dhcpv4.OptRFC3004UserClass([]string{"iPXE"}))
	for _, tc := range []struct {
		name   string
		client []dhcpv4.Modifier
		file   string // in the field, "" if it is no TFTP
		option string // 67
		class  string
		vendor bool // from a proxy, discovery control
	}{
		{"a BIOS", firmware("PXEClient", 0), "52:54:00:aa:bb:01/BIOS/amd64", "52:54:00:aa:bb:01/BIOS/amd64", "PXEClient", true},
		{"a BIOS that does not say so", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))}, "52:54:00:aa:bb:01/BIOS/amd64", "52:54:00:aa:bb:01/BIOS/amd64", "PXEClient", true},
		{"UEFI", firmware("PXEClient", 7), "52:54:00:aa:bb:01/UEFI/amd64", "52:54:00:aa:bb:01/UEFI/amd64", "PXEClient", false},
		{"UEFI that says byte code", firmware("PXEClient", 9), "52:54:00:aa:bb:01/UEFI/amd64", "52:54:00:aa:bb:01/UEFI/amd64", "PXEClient", false},
		{"UEFI by HTTP", firmware("HTTPClient", 16), "", "http://192.0.2.1/52:54:00:aa:bb:01/false/amd64", "HTTPClient", false},
		{"iPXE from a BIOS", firmware("PXEClient", 0, dhcpv4.WithUserClass("iPXE", false)), "", "http://192.0.2.1/52:54:00:aa:bb:01/true/amd64", "PXEClient", true},
		{"iPXE from UEFI", firmware("PXEClient", 7, rfc), "", "http://192.0.2.1/52:54:00:aa:bb:01/false/amd64", "PXEClient", true},
		{"iPXE by its own option", firmware("PXEClient", 7, dhcpv4.WithGeneric(optionIPXE, []byte{1, 1, 1})), "", "http://192.0.2.1/52:54:00:aa:bb:01/false/amd64", "PXEClient", true},
		{"UEFI of arm64", firmware("PXEClient", 11), "52:54:00:aa:bb:01/UEFI/arm64", "52:54:00:aa:bb:01/UEFI/arm64", "PXEClient", false},
		{"UEFI of arm64 by HTTP", firmware("HTTPClient", 19), "", "http://192.0.2.1/52:54:00:aa:bb:01/false/arm64", "HTTPClient", false},
		{"iPXE from UEFI of arm64", firmware("PXEClient", 11, rfc), "", "http://192.0.2.1/52:54:00:aa:bb:01/false/arm64", "PXEClient", true},
		{"U-Boot of arm64", firmware("PXEClient", 22), "", "", "", false},
		{"an old UEFI of 32 bits", firmware("PXEClient", 6), "", "", "", false},
		{"HTTP of a class for TFTP", firmware("PXEClient", 16), "", "", "", false},
		{"a system that runs", []dhcpv4.Modifier{dhcpv4.WithUserClass("iPXE", false)}, "", "", "", false},
		{"one that there is nothing for", firmware("PXEClient", 0, dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0, 0, 99})), "", "", "", false},
	} {
		for _, proxy := range []bool{true, false} {
			s := &Server{Config: config(t)}
			if !proxy {
				s.Pool = &Range{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.19")}
				s.pool, _ = openPool(*s.Pool, nettest.Address.Addr(), s.Leases, time.Now)
			}
			m := message(t, dhcpv4.MessageTypeDiscover, tc.client...)
			reply := s.answer(m, dhcpv4.ServerPort)
			if proxy && tc.option == "" {
				if reply != nil {
					t.Errorf("%s: a proxy says %s", tc.name, reply.Summary())
				}
				continue
			}
			reply, err := dhcpv4.FromBytes(reply.ToBytes())
			if err != nil {
				t.Fatal(err)
			}
			if reply.BootFileName != tc.file || reply.BootFileNameOption() != tc.option || reply.ClassIdentifier() != tc.class || reply.TransactionID != m.TransactionID {
				t.Errorf("%s, proxy %v: %s", tc.name, proxy, reply.Summary())
			}
			if vendor := reply.Options.Get(dhcpv4.OptionVendorSpecificInformation); (vendor != nil) != (tc.vendor && proxy) {
				t.Errorf("%s, proxy %v: option 43 is %v", tc.name, proxy, vendor)
			}
			if addressed := !reply.YourIPAddr.IsUnspecified(); addressed == proxy || proxy == (reply.SubnetMask() != nil) || proxy != (len(reply.Router()) == 0) {
				t.Errorf("%s, proxy %v: %s", tc.name, proxy, reply.Summary())
			}
			if want := tc.option != ""; want != reply.ServerIPAddr.Equal(nettest.Address.Addr().AsSlice()) {
				t.Errorf("%s, proxy %v: the file is at %s", tc.name, proxy, reply.ServerIPAddr)
			}
		}
	}
}

// Firmware does not agree on the order of a UUID's bytes.
func TestAUUIDIsReadBothWays(t *testing.T) {
	c := clientOf(message(t, dhcpv4.MessageTypeDiscover, firmware("PXEClient", 7)...))
	if got := strings.Join(c.UUIDs, " "); got != "30313233-3435-3637-3839-616263646566 33323130-3534-3736-3839-616263646566" {
		t.Errorf("the UUIDs are %s", got)
	}
	for _, bad := range []string{"", "\x00short", "\x01" + "0123456789abcdef", "\x00" + strings.Repeat("\x00", 16), "\x00" + strings.Repeat("\xff", 16)} {
		if got := machineIDs([]byte(bad)); got != nil {
			t.Errorf("machineIDs(%q) = %v", bad, got)
		}
	}
}

func TestAProxyAnswersOnItsOwnPortWhatItOffered(t *testing.T) {
	s := &Server{Config: config(t)}
	uefi := firmware("PXEClient", 7, dhcpv4.WithClientIP(net.IPv4(192, 0, 2, 77)))
	reply := s.answer(message(t, dhcpv4.MessageTypeRequest, uefi...), BootPort)
	if reply == nil || reply.MessageType() != dhcpv4.MessageTypeAck || reply.BootFileName != "52:54:00:aa:bb:01/UEFI/amd64" || !reply.ClientIPAddr.Equal(net.IPv4(192, 0, 2, 77)) {
		t.Errorf("on port %d: %v", BootPort, reply)
	}
	for port, kind := range map[int]dhcpv4.MessageType{dhcpv4.ServerPort: dhcpv4.MessageTypeRequest, BootPort: dhcpv4.MessageTypeDiscover} {
		if reply := s.answer(message(t, kind, uefi...), port); reply != nil {
			t.Errorf("%s on port %d is answered: %v", kind, port, reply.Summary())
		}
	}
}

// serve runs a server on a link.
func serve(t *testing.T, c Config) (clients *net.Interface) {
	t.Helper()
	_, clients = nettest.Link(t)
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return clients
}

// client is a DHCP client of somebody else's, with the MAC address that ends in n.
func client(t *testing.T, link *net.Interface, n byte) *nclient4.Client {
	t.Helper()
	c, err := nclient4.New(link.Name, nclient4.WithHWAddr(net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, n}), nclient4.WithTimeout(time.Second), nclient4.WithRetry(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Real packets on a link: clients of the library get an address and what to boot, keep it, are refused another's, and give it back.
func TestClientsOnALink(t *testing.T) {
	c := config(t)
	c.Pool = &Range{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")}
	leased := make(chan string, 10)
	c.Leased = func(mac net.HardwareAddr, a netip.Addr) { leased <- mac.String() + " " + a.String() }
	link := serve(t, c)
	ctx, pxe := t.Context(), firmware("PXEClient", 0)

	first, err := client(t, link, 1).Request(ctx, pxe...)
	if err != nil {
		t.Fatal(err)
	}
	if ack := first.ACK; !ack.YourIPAddr.Equal(net.IPv4(192, 0, 2, 10)) || ack.BootFileName != "52:54:00:aa:bb:01/BIOS/amd64" || ack.IPAddressLeaseTime(0) != time.Hour {
		t.Errorf("the first client has %s", ack.Summary())
	}
	if got := <-leased; got != "52:54:00:aa:bb:01 192.0.2.10" {
		t.Errorf("Leased was told %s", got)
	}
	second, err := client(t, link, 2).Request(ctx)
	if err != nil || !second.ACK.YourIPAddr.Equal(net.IPv4(192, 0, 2, 11)) || second.ACK.BootFileNameOption() != "" {
		t.Fatalf("the second client: %v, %v", second, err)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	third := client(t, link, 3)
	if offer, err := third.DiscoverOffer(short); err == nil {
		t.Errorf("a third client is offered %s of two addresses", offer.YourIPAddr)
	}
	if again, err := client(t, link, 1).Request(ctx, pxe...); err != nil || !again.ACK.YourIPAddr.Equal(first.ACK.YourIPAddr) {
		t.Errorf("the first client again: %v, %v", again, err)
	}
	stolen := *second
	stolen.Offer.ClientHWAddr = net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 3}
	if _, err := third.RequestFromOffer(ctx, stolen.Offer); err == nil || !strings.Contains(err.Error(), "Nak") {
		t.Errorf("another's address is given: %v", err)
	}
	second.ACK.ClientHWAddr = net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 2}
	release, err := dhcpv4.NewReleaseFromACK(second.ACK)
	if err != nil {
		t.Fatal(err)
	}
	probe := client(t, link, 2)
	probe.SendAndRead(short, nclient4.DefaultServers, release, nil) // has no answer
	if got, err := third.Request(ctx); err != nil || !got.ACK.YourIPAddr.Equal(net.IPv4(192, 0, 2, 11)) {
		t.Errorf("after the second has given its address back: %v, %v", got, err)
	}
}

// Beside another server: the proxy's offer comes, too, and has no address in it.
func TestAProxyOnALink(t *testing.T) {
	link := serve(t, config(t))
	offer, err := client(t, link, 1).DiscoverOffer(t.Context(), firmware("PXEClient", 7)...)
	if err != nil || !offer.YourIPAddr.IsUnspecified() || offer.BootFileNameOption() != "52:54:00:aa:bb:01/UEFI/amd64" {
		t.Errorf("the offer is %v, %v", offer, err)
	}
}

func FuzzAnswer(f *testing.F) {
	for _, m := range []*dhcpv4.DHCPv4{
		message(f, dhcpv4.MessageTypeDiscover, firmware("PXEClient", 0)...), message(f, dhcpv4.MessageTypeRequest, firmware("HTTPClient", 16)...), message(f, dhcpv4.MessageTypeInform),
	} {
		f.Add(m.ToBytes())
	}
	c := config(f)
	c.Log = func(string, ...any) {}
	proxy, server := &Server{Config: c}, &Server{Config: c}
	server.Pool = &Range{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.19")}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := parse(packet)
		if m == nil {
			return
		}
		server.pool, _ = openPool(*server.Pool, nettest.Address.Addr(), filepath.Join(t.TempDir(), "leases"), time.Now)
		for _, s := range []*Server{proxy, server} {
			for _, port := range []int{dhcpv4.ServerPort, BootPort} {
				reply := s.answer(m, port)
				if reply == nil {
					continue
				}
				if _, err := dhcpv4.FromBytes(reply.ToBytes()); err != nil {
					t.Errorf("the reply to %x cannot be read: %v", packet, err)
				}
				destination(reply, port, netip.AddrPort{})
			}
		}
	})
}

// What is to be done about a port depends on why it cannot be had.
func TestWhyAPortCannotBeHad(t *testing.T) {
	for _, want := range []unix.Errno{unix.EACCES, unix.EPERM, unix.EADDRINUSE, unix.ENODEV} {
		if err := errno(fmt.Errorf("cannot bind to port 67: %v", want)); !errors.Is(err, want) {
			t.Errorf("%v; want %v", err, want)
		}
	}
	if other := errors.New("cannot bind"); errno(other) != other {
		t.Errorf("%v; want it as it is", errno(other))
	}
}
