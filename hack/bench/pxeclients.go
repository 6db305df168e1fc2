package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// pxeClient is a simulated machine: a network card of its own on the link, and what it was told.
type pxeClient struct {
	number int
	card   netlink.Link
	name   string // of the card
	web    *http.Client
	boot   string // the URL of its directory on the boot server
}

// pxeSimulated are the clients. They go from DHCP to their scripts, and then all fetch the same files from both servers, in turn.
func pxeSimulated(ctx context.Context) error {
	if err := untilClosed(os.Stdin); err != nil {
		return err
	}
	clients, err := pxeCards()
	if err != nil {
		return err
	}
	var t pxeTimes
	if t.Prepare, err = together(clients, func(c *pxeClient) error { return c.prepare(ctx) }); err != nil {
		return err
	}
	files := []string{image + ".initramfs", image + ".vmlinuz"}
	for _, file := range files {
		info, err := os.Stat(filepath.Join(outputs, file))
		if err != nil {
			return err
		}
		t.Bytes += info.Size()
	}
	for range pxeRounds {
		for _, from := range []struct {
			seconds *float64
			url     func(*pxeClient) string
		}{{&t.Bare, func(*pxeClient) string { return "http://" + bareAddress + "/" }}, {&t.Ours, func(c *pxeClient) string { return c.boot }}} {
			took, err := together(clients, func(c *pxeClient) error {
				got := int64(0)
				for _, file := range files {
					n, err := c.fetch(ctx, from.url(c)+file, io.Discard)
					if err != nil {
						return err
					}
					got += n
				}
				if got != t.Bytes {
					return fmt.Errorf("%d bytes of %d", got, t.Bytes)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if *from.seconds == 0 || took < *from.seconds {
				*from.seconds = took
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

// together has all clients do the same at once, and returns how many seconds the last took.
func together(clients []*pxeClient, do func(*pxeClient) error) (float64, error) {
	began := time.Now()
	group := errgroup.Group{}
	for _, c := range clients {
		group.Go(func() error {
			if err := do(c); err != nil {
				return fmt.Errorf("client %d: %w", c.number, err)
			}
			return nil
		})
	}
	err := group.Wait()
	return time.Since(began).Seconds(), err
}

// pxeCards makes the machines' network cards on this end of the link. Each answers for its own address only.
func pxeCards() ([]*pxeClient, error) {
	for _, setting := range [][2]string{{"arp_ignore", "1"}, {"arp_announce", "2"}, {"rp_filter", "0"}} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+setting[0], []byte(setting[1]), 0); err != nil {
			return nil, err
		}
	}
	link, err := netlink.LinkByName("machines")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return nil, err
	}
	var all []*pxeClient
	for n := range pxeClients {
		c := &pxeClient{number: n, name: fmt.Sprintf("machine%d", n)}
		c.card = &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: c.name, ParentIndex: link.Attrs().Index, HardwareAddr: pxeMAC(n)}, Mode: netlink.MACVLAN_MODE_PRIVATE}
		if err := errors.Join(netlink.LinkAdd(c.card), netlink.LinkSetUp(c.card)); err != nil {
			return nil, fmt.Errorf("macvlan %s: %w", c.name, err)
		}
		dialer := &net.Dialer{Control: c.onCard}
		c.web = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
		all = append(all, c)
	}
	return all, nil
}

// onCard has a socket use the client's card.
func (c *pxeClient) onCard(_, _ string, raw syscall.RawConn) (err error) {
	return errors.Join(raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), c.name) }), err)
}

// prepare goes the way of a BIOS: DHCP, iPXE by TFTP, DHCP again, and iPXE's scripts.
func (c *pxeClient) prepare(ctx context.Context) error {
	firmware, err := nclient4.New(c.name, nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(5))
	if err != nil {
		return err
	}
	defer firmware.Close()
	pxe := []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")), dhcpv4.WithOption(dhcpv4.OptClientArch(0))}
	lease, err := firmware.Request(ctx, pxe...)
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	if err := netlink.AddrAdd(c.card, &netlink.Addr{IPNet: &net.IPNet{IP: lease.ACK.YourIPAddr.To4(), Mask: lease.ACK.SubnetMask()}}); err != nil {
		return err
	}
	if n, err := c.tftp(ctx, lease.ACK.BootFileName); err != nil || n < 50_000 {
		return fmt.Errorf("tftp: %s: %d bytes, %w", lease.ACK.BootFileName, n, err)
	}
	if lease, err = firmware.Request(ctx, append(pxe, dhcpv4.WithUserClass("iPXE", false))...); err != nil {
		return fmt.Errorf("dhcp of iPXE: %w", err)
	}
	var ok bool
	if c.boot, ok = strings.CutSuffix(lease.ACK.BootFileNameOption(), "start.ipxe"); !ok {
		return fmt.Errorf("iPXE is told %q", lease.ACK.BootFileNameOption())
	}
	for _, file := range []string{"start.ipxe", "machine.ipxe?serial=1", image + ".ipxe"} {
		script := &strings.Builder{}
		if _, err := c.fetch(ctx, c.boot+file, script); err != nil {
			return err
		}
		if mine := fmt.Sprintf(" machine=%d\n", c.number); !strings.HasPrefix(script.String(), "#!ipxe") || strings.HasPrefix(file, "machine") && !strings.Contains(script.String(), mine) {
			return fmt.Errorf("%s is %q", file, script)
		}
	}
	return nil
}

func (c *pxeClient) fetch(ctx context.Context, url string, to io.Writer) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	response, err := c.web.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.Copy(to, response.Body)
}

// tftp reads a file as firmware does, in blocks of 1432 bytes, each of which is acknowledged.
func (c *pxeClient) tftp(ctx context.Context, name string) (total int, err error) {
	listener := net.ListenConfig{Control: c.onCard}
	conn, err := listener.ListenPacket(ctx, "udp4", ":0")
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	const block = 1432
	var to net.Addr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 69}
	packet, input, last := fmt.Appendf(nil, "\x00\x01%s\x00octet\x00blksize\x00%d\x00", name, block), make([]byte, 2048), 0
	for tries := 0; tries < 10; {
		if _, err := conn.WriteTo(packet, to); err != nil {
			return total, err
		}
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return total, err
		}
		n, from, err := conn.ReadFrom(input)
		if err != nil || n < 4 {
			tries++
			continue
		}
		to = from
		switch kind, number := binary.BigEndian.Uint16(input), int(binary.BigEndian.Uint16(input[2:])); {
		case kind == 6:
			packet = []byte{0, 4, 0, 0}
		case kind == 3 && number == last+1:
			last, total, tries = number, total+n-4, 0
			packet = binary.BigEndian.AppendUint16([]byte{0, 4}, uint16(number))
			if n-4 < block {
				_, err := conn.WriteTo(packet, to)
				return total, err
			}
		case kind == 5:
			return total, fmt.Errorf("%q", input[4:n])
		}
	}
	return total, errors.New("no answer")
}
