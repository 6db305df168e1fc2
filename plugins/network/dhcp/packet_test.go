package dhcp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
)

func TestPacketHeaders(t *testing.T) {
	got := encodePacket([]byte("abc"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.1"))
	// The headers sum to zero, as a receiver checks them.
	if sum := checksum(got[:ipHeader], 0); sum != 0 {
		t.Errorf("IP checksum: %#x is left; want 0", sum)
	}
	if sum := checksum(got[ipHeader:], pseudoHeader(got, udpHeader+3)); sum != 0 {
		t.Errorf("UDP checksum: %#x is left; want 0", sum)
	}
	const want = "4500001f00000000401100000" // up to the checksum
	if h := hex.EncodeToString(got[:10]); h != want[:20] {
		t.Errorf("IP header begins %s; want %s", h, want[:20])
	}
	if ports := hex.EncodeToString(got[ipHeader : ipHeader+4]); ports != "00440043" {
		t.Errorf("ports %s; want 68 to 67", ports)
	}
}

// reply is a packet from a server, with n bytes of IP options.
func reply(message string, options int) []byte {
	p := encodePacket([]byte(message), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.10"))
	p[ipHeader+1], p[ipHeader+3] = serverPort, clientPort
	p = append(p[:ipHeader:ipHeader], append(make([]byte, options), p[ipHeader:]...)...)
	p[0] += byte(options / 4)
	p[3] += byte(options)
	return p
}

func TestDecodePacket(t *testing.T) {
	for _, test := range []struct {
		name   string
		packet []byte
		want   string
	}{
		{"plain", reply("abc", 0), "abc"},
		{"options", reply("abc", 8), "abc"},
		{"padding of a short frame", append(reply("abc", 0), 0, 0, 0), "abc"},
		{"cut", reply("abc", 0)[:30], ""},
		{"empty", nil, ""},
		{"for the server", encodePacket([]byte("abc"), netip.Addr{}, netip.MustParseAddr("192.0.2.1")), ""},
	} {
		got, err := decodePacket(test.packet)
		if string(got) != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

func FuzzDecodePacket(f *testing.F) {
	f.Add(reply("abc", 0))
	f.Add(reply("abc", 40))
	f.Fuzz(func(t *testing.T, p []byte) {
		if m, err := decodePacket(p); err == nil && !bytes.Contains(p, m) {
			t.Errorf("%x is not in %x", m, p)
		}
	})
}
