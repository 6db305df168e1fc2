package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// memory is a file.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// pattern is n bytes, no two blocks of which are the same.
func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)
	}
	return data
}

// served is a server on the loopback that has the files, and how its transfers have ended.
type served struct {
	*net.UDPAddr
	ended chan error
}

func serve(t *testing.T, transfers int, files map[string][]byte) served {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	this := served{conn.LocalAddr().(*net.UDPAddr), make(chan error, 100)}
	s := &Server{
		Transfers: transfers,
		Open: func(client netip.Addr, name string) (File, error) {
			data, ok := files[name]
			if !ok || !client.IsLoopback() {
				return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
			}
			return memory{bytes.NewReader(data)}, nil
		},
		Ended: func(_ netip.Addr, _ string, err error) { this.ended <- err },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return this
}

// Another implementation gets the bytes: files that end within a block, and at its end, with the client's size of a block and ours.
func TestAnotherClientGetsTheBytes(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, tc := range []struct{ size, block int }{{1, 512}, {512, 512}, {1468 * 3, 1468}, {300_000, 8192}} {
		t.Run(fmt.Sprintf("%d in %d", tc.size, tc.block), func(t *testing.T) {
			t.Parallel() // curl takes a second to end
			want := pattern(tc.size)
			s := serve(t, 1, map[string][]byte{"a/loader.efi": want})
			got, err := exec.Command("curl", "-sS", "--max-time", "20", "--tftp-blksize", fmt.Sprint(tc.block), fmt.Sprintf("tftp://%s/a/loader.efi", s)).Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := <-s.ended; err != nil {
				t.Errorf("the transfer ended with %v", err)
			}
		})
	}
}

// client speaks packet by packet.
type client struct {
	t    *testing.T
	conn *net.UDPConn
	peer netip.AddrPort // of the last packet
}

func dial(t *testing.T) *client {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn}
}

func (c *client) send(to netip.AddrPort, packet string) {
	c.t.Helper()
	if _, err := c.conn.WriteToUDPAddrPort([]byte(packet), to); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ask(s served, fields ...string) {
	c.send(s.AddrPort(), "\x00\x01"+strings.Join(fields, "\x00")+"\x00")
}

func (c *client) acknowledge(block uint16) {
	c.send(c.peer, string(binary.BigEndian.AppendUint16([]byte{0, opAck}, block)))
}

// receive returns the next packet, "" if none comes within the time.
func (c *client) receive(within time.Duration) string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(within))
	buffer := make([]byte, 2048)
	n, peer, err := c.conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		return ""
	}
	c.peer = peer
	return string(buffer[:n])
}

// block is the packet of a block of data.
func block(n uint16, data []byte) string {
	return string(append(binary.BigEndian.AppendUint16([]byte{0, opData}, n), data...))
}

func (c *client) expect(want string) {
	c.t.Helper()
	if got := c.receive(10 * time.Second); got != want {
		c.t.Fatalf("received %d bytes, %.40q; want %d, %.40q", len(got), got, len(want), want)
	}
}

// A window whose first block has come and whose second has not goes on with the second. An answer to what was acknowledged before is no reason
// to send anything.
func TestAWindowGoesOnWhereItWasLost(t *testing.T) {
	data := pattern(8*5 + 3)
	s, c := serve(t, 1, map[string][]byte{"f": data}), dial(t)
	c.ask(s, "f", "OCTET", "blksize", "8", "windowsize", "3", "tsize", "0", "timeout", "4", "nonsense", "1", "windowsize", "x")
	c.expect("\x00\x06blksize\x008\x00windowsize\x003\x00tsize\x0043\x00timeout\x004\x00")
	c.acknowledge(0)
	for n := range uint16(3) {
		c.expect(block(n+1, data[n*8:n*8+8]))
	}
	c.acknowledge(1)
	for n := uint16(1); n < 4; n++ {
		c.expect(block(n+1, data[n*8:n*8+8]))
	}
	c.acknowledge(1)
	c.acknowledge(60000)
	if got := c.receive(300 * time.Millisecond); got != "" {
		t.Errorf("after an old answer came %q", got)
	}
	c.acknowledge(4)
	c.expect(block(5, data[32:40]))
	c.expect(block(6, data[40:]))
	c.acknowledge(6)
	if err := <-s.ended; err != nil {
		t.Errorf("the transfer ended with %v", err)
	}
}

// A block that is not acknowledged is sent again, and the numbers of blocks begin anew after 65535.
func TestALargeFileBeginsItsNumbersAnew(t *testing.T) {
	data := pattern(8*65540 + 1)
	conn, ours := pair(t)
	tr := &transfer{conn: ours, file: memory{bytes.NewReader(data)}, options: options{block: 8, window: 32, timeout: 200 * time.Millisecond},
		buffer: make([]byte, 12), input: make([]byte, maxRequest)}
	done := make(chan error, 1)
	go func() { done <- tr.run() }()
	var got []byte
	buffer, lost := make([]byte, 64), false
	for next := uint16(1); ; {
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatal(err)
		}
		number := binary.BigEndian.Uint16(buffer[2:])
		if number == 100 && !lost {
			lost = true
			continue
		}
		if number == next {
			got, next = append(got, buffer[4:n]...), next+1
		}
		if number == 100 || number%32 == 0 || n < 12 {
			conn.Write(binary.BigEndian.AppendUint16([]byte{0, opAck}, next-1))
		}
		if n < 12 && number == next-1 {
			break
		}
	}
	if err := <-done; err != nil || !bytes.Equal(got, data) || !lost {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
}

// pair are two sockets that are connected to each other.
func pair(t *testing.T) (a, b *net.UDPConn) {
	t.Helper()
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	first, err := net.ListenUDP("udp4", local)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = net.DialUDP("udp4", local, first.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if a, err = net.DialUDP("udp4", first.LocalAddr().(*net.UDPAddr), b.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestAClientThatHasGoneIsGivenUp(t *testing.T) {
	_, ours := pair(t)
	tr := &transfer{conn: ours, file: memory{bytes.NewReader(pattern(100))}, options: options{block: 8, window: 1, timeout: 5 * time.Millisecond},
		buffer: make([]byte, 12), input: make([]byte, maxRequest)}
	if err := tr.run(); !errors.Is(err, ErrGone) {
		t.Errorf("run = %v; want ErrGone", err)
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, 1, map[string][]byte{"f": pattern(10)})
	for _, tc := range []struct{ packet, want string }{
		{"\x00\x02f\x00octet\x00", "\x00\x05\x00\x02this server only gives\x00"},
		{"\x00\x01f\x00netascii\x00", "\x00\x05\x00\x04mode \"netascii\": only octet is given\x00"},
		{"\x00\x01f\x00octet", "\x00\x05\x00\x04not a request of RFC 1350\x00"},
		{"\x00\x01\x00octet\x00", "\x00\x05\x00\x04not a request of RFC 1350\x00"},
		{"\x00\x01/etc/passwd\x00octet\x00", "\x00\x05\x00\x01no such file\x00"},
		{"\x00\x01../f\x00octet\x00", "\x00\x05\x00\x01no such file\x00"},
		{"\x00\x01" + strings.Repeat("f", 600) + "\x00octet\x00", ""},
		{"\x00\x03\x00\x01data", ""},
		{"\x00", ""},
	} {
		c := dial(t)
		c.send(s.AddrPort(), tc.packet)
		within := 10 * time.Second
		if tc.want == "" {
			within = 100 * time.Millisecond
		}
		if got := c.receive(within); got != tc.want {
			t.Errorf("%.40q is answered %q; want %q", tc.packet, got, tc.want)
		}
	}
}

// A client that is one too many waits, and one that asks twice has one transfer.
func TestThereAreSoManyTransfersAndNoMore(t *testing.T) {
	s := serve(t, 1, map[string][]byte{"f": pattern(10)})
	first, second := dial(t), dial(t)
	first.ask(s, "f", "octet", "timeout", "9")
	first.expect("\x00\x06timeout\x009\x00")
	first.ask(s, "f", "octet", "timeout", "9")
	second.ask(s, "f", "octet")
	if a, b := first.receive(200*time.Millisecond), second.receive(200*time.Millisecond); a != "" || b != "" {
		t.Errorf("while one transfer runs there came %q and %q", a, b)
	}
	first.send(first.peer, "\x00\x05\x00\x08enough\x00")
	if err := <-s.ended; !errors.Is(err, ErrUnwanted) || !strings.Contains(err.Error(), `error 8: "enough"`) {
		t.Errorf("the transfer ended with %v", err)
	}
	second.ask(s, "f", "octet")
	second.expect(block(1, pattern(10)))
	second.acknowledge(1)
	<-s.ended
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x00\x01f\x00octet\x00blksize\x001468\x00tsize\x000\x00"))
	f.Add([]byte("\x00\x02f\x00octet\x00"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		parseAnswer(packet)
		r, err := parse(packet)
		if err != nil {
			return
		}
		o := r.options
		if r.name == "" || strings.Contains(r.name, "\x00") || o.block < 8 || o.block > maxBlock || o.window < 1 || o.window > maxWindow || o.timeout < time.Second {
			t.Errorf("parse(%q) = %+v", packet, r)
		}
		if oack := o.acknowledgement(1 << 40); len(oack) > maxRequest {
			t.Errorf("the acknowledgement has %d bytes", len(oack))
		}
	})
}
