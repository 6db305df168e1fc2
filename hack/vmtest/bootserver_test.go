package vmtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// networkBoots are the ways in which a machine boots from cosi-boot.
var networkBoots = []struct {
	name  string
	boot  node.Boot
	proxy bool   // beside a DHCP server
	plain bool   // the ROM of its card is none of iPXE, as far as the server sees
	rom   string // of its card, as an argument of QEMU
	https bool   // UEFI HTTP boot, over HTTPS
	extra []string
	path  string // what the list of machines says of the way
}{
	{name: "a BIOS with iPXE in its ROM", boot: node.BIOS, path: "BIOS"},
	{name: "a BIOS with PXE in its ROM", boot: node.BIOS, plain: true, path: "BIOS"},
	{name: "UEFI by PXE, beside a DHCP server", boot: node.UEFI, proxy: true, rom: noROM, path: "UEFI"},
	{name: "UEFI by HTTP", boot: node.UEFI, rom: noROM, extra: noPXE, path: "UEFI HTTP"},
	{name: "UEFI by HTTPS", boot: node.UEFI, rom: noROM, extra: noPXE, https: true, path: "UEFI HTTP"},
}

// noROM is for a card that the firmware has a driver of its own for, and noPXE leaves it HTTP.
const noROM = ",romfile="

var noPXE = []string{"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"}

// bootNIC is the MAC address of the card that machines boot from.
const bootNIC = "52:54:00:c0:51:01"

// inNamespace says that the test has a network namespace of its own.
const inNamespace = "COSI_VMTEST_NETNS"

// Machines boot from cosi-boot on a real network, with nothing but a network card, and are nodes with the user data that it has for them.
func TestBootServer(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("boots in each way over the network, with COSI_TEST_BOOTS=all: make test-boot")
	}
	if os.Getenv(inNamespace) == "" {
		again(t)
		return
	}
	program := filepath.Join(t.TempDir(), "cosi-boot")
	gotool(t, "build", "-o", program, "./tools/cosi-boot")
	for _, tc := range networkBoots {
		if tc.boot == node.BIOS && vmtest.Arch() != qemu.AMD64 {
			continue // there is none
		}
		t.Run(tc.name, func(t *testing.T) {
			tap(t)
			id := vmtest.Identity(t)
			arguments := []string{"--dhcp", "192.0.2.100-192.0.2.199"}
			if tc.proxy {
				addressesOnly(t)
				arguments = nil
			}
			if tc.https {
				arguments = append(arguments, "--http-boot", "https")
			}
			state, _ := serveBoots(t, program, id, arguments...)
			card, extra := bootCard("boot", tc.rom), tc.extra
			rom := &pxeROM{}
			if tc.plain {
				c := newCable(t, rom.out, rom.in)
				card, extra = bootCard(c.backend(), tc.rom), append(c.arguments("boot"), extra...)
			}
			if tc.https {
				extra = append(trusts(t, filepath.Join(state, "https.crt")), extra...)
			}
			n := vmtest.Start(t, vmtest.Options{
				NoImage: true, Boot: tc.boot, Identity: id, NoUserData: true, Extra: slices.Concat(bootNetwork, extra, card),
			})
			n.Ready(t)
			checkSource(t, n, "url", "", false)
			n.Expect(t, 0, `user data url: Applied, 1 of 1 documents\r?\n`)
			listed(t, n, tc.path)
			if tc.https {
				n.Expect(t, 0, `URI: https://192\.0\.2\.1:8443/boot/`)
			}
			if asked, name := rom.asked.Load(), rom.loaded.Load(); tc.plain && (asked == 0 || name != "52-54-00-c0-51-01/undionly.kpxe") {
				t.Errorf("of the ROM's DHCP messages %d said that it is iPXE, and it loaded %v", asked, name)
			}
			n.PressPower(t)
		})
	}
	untrusted(t, program)
}

// bootNetwork is QEMU's end of the network that machines boot from.
var bootNetwork = []string{"-netdev", "tap,id=boot,ifname=boot,script=no,downscript=no"}

// bootCard is the card that they boot from.
func bootCard(network, rom string) []string {
	return []string{"-device", "virtio-net-pci,netdev=" + network + ",bootindex=0,mac=" + bootNIC + rom}
}

// again runs this test in a network namespace: nothing it does is seen outside.
func again(t *testing.T) {
	_, ways, _ := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^"+t.Name()+"$/"+ways, "-test.v", "-test.timeout", "20m")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("a network namespace: %v", err)
	}
	t.Logf("in a network namespace:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// tap makes the network that machines boot from: the host's end of it has 192.0.2.1.
func tap(t *testing.T) {
	t.Helper()
	link := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "boot"}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netlink.LinkDel(link) })
	err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1).To4(), Mask: net.CIDRMask(24, 32)}})
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if loopback, loErr := netlink.LinkByName("lo"); err == nil && loErr == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addressesOnly is a DHCP server that knows nothing of booting.
func addressesOnly(t *testing.T) {
	t.Helper()
	own := net.IPv4(192, 0, 2, 1)
	server, err := server4.NewServer("boot", nil, func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)), dhcpv4.WithServerIP(own),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(own)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(3600))
		if err == nil {
			_, err = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve() }()
	t.Cleanup(func() { server.Close(); <-done })
}

// bootImage is the path of the image that machines boot, without a suffix.
func bootImage(t *testing.T) string {
	t.Helper()
	return strings.TrimSuffix(vmtest.Image(t, "base", "ipxe"), ".ipxe")
}

// serveBoots runs cosi-boot, which has user data for the machine. It returns the directory with what it keeps, and what it says.
func serveBoots(t *testing.T, program string, id *node.Identity, arguments ...string) (dir string, out *qemu.Console) {
	t.Helper()
	dir = t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "node.yaml"), string(data))
	writeText(t, filepath.Join(dir, "machines.yaml"), fmt.Sprintf("machines: [{mac: %q, image: %s, user_data: node.yaml}]\n", bootNIC, bootImage(t)))
	out = qemu.NewConsole(nil)
	cmd := exec.Command(program, append([]string{"serve", "--interface", "boot", "--machines", filepath.Join(dir, "machines.yaml"), "--state", dir}, arguments...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("cosi-boot: %v", err)
		}
		if t.Failed() {
			t.Logf("cosi-boot said:\n%s", out.Tail(40))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := out.Wait(ctx, 0, regexp.MustCompile(`(?m)^  page `)); err != nil {
		t.Fatal(err)
	}
	return dir, out
}

// booted is a machine as cosi-boot's list has it.
type booted struct{ MAC, Stage, Firmware, Image, Problem string }

// machines returns the list.
func machines(t *testing.T) []booted {
	t.Helper()
	var list struct{ Machines []booted }
	response, err := http.Get("http://127.0.0.1:8068/machines")
	if err == nil {
		err = errors.Join(json.NewDecoder(response.Body).Decode(&list), response.Body.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return list.Machines
}

// listed waits until the list of machines says that the node serves, and how it has booted.
func listed(t *testing.T, n *vmtest.Node, firmware string) {
	t.Helper()
	list := machines(t)
	for ctx := n.Patience(t, moment); len(list) != 1 || list[0].Stage != "serving"; list = machines(t) {
		select {
		case <-ctx.Done():
			t.Fatalf("the list has %+v", list)
		case <-time.After(100 * time.Millisecond):
		}
	}
	image := filepath.Base(bootImage(t))
	if m := list[0]; m.MAC != bootNIC || m.Firmware != firmware || m.Image != image || m.Problem != "" {
		t.Errorf("the list has %+v; want firmware %s and image %s", m, firmware, image)
	}
}
