package vmtest_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// pxeROM makes the ROM of QEMU's cards, which is iPXE, to a DHCP server what the ROMs of others are: on the way, what it says of being iPXE is taken out of
// its messages. What it loads by TFTP speaks for itself again.
type pxeROM struct {
	asked  atomic.Int64 // messages that were changed
	loaded atomic.Value // the first file that was asked for by TFTP
}

// Where things are in what UDP carries. DHCP: RFC 2131, section 2; TFTP: RFC 1350, section 5.
const (
	udpHead     = 8
	dhcpOptions = 240 // behind the magic cookie
	tftpPort    = 69
	tftpName    = 2 // behind the operation
)

// The options by which iPXE is known: user class, and its own.
var optionsOfIPXE = []byte{byte(dhcpv4.OptionUserClassInformation.Code()), 175}

// out changes a frame from the card.
func (r *pxeROM) out(frame []byte) []byte {
	datagram := udp(frame)
	if datagram == nil || r.loaded.Load() != nil {
		return frame
	}
	payload := datagram[udpHead:]
	switch port := binary.BigEndian.Uint16(datagram[2:]); {
	case port == tftpPort && len(payload) > tftpName:
		name, _, _ := bytes.Cut(payload[tftpName:], []byte{0})
		r.loaded.Store(string(name))
	case port == dhcpv4.ServerPort && len(payload) > dhcpOptions && withoutOptions(payload[dhcpOptions:], optionsOfIPXE):
		r.asked.Add(1)
		clear(datagram[6:udpHead]) // no checksum
	}
	return frame
}

// in leaves a frame to the card as it is.
func (*pxeROM) in(frame []byte) []byte { return frame }

// withoutOptions puts padding where the options with the codes are, and reports whether there were any.
func withoutOptions(options, codes []byte) (found bool) {
	pad, end := byte(dhcpv4.OptionPad.Code()), byte(dhcpv4.OptionEnd.Code())
	for at := 0; at+1 < len(options) && options[at] != end; {
		if options[at] == pad {
			at++
			continue
		}
		next := min(at+2+int(options[at+1]), len(options))
		if slices.Contains(codes, options[at]) {
			found = true
			clear(options[at:next]) // the code of padding is 0
		}
		at = next
	}
	return found
}

// What TestBootServer relies on: to the server, the ROM is none of iPXE.
func TestAPXEROMSaysNothingOfIPXE(t *testing.T) {
	m, err := dhcpv4.NewDiscovery([]byte{0x52, 0x54, 0, 0xc0, 0x51, 1}, dhcpv4.WithUserClass("iPXE", false),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{1, 1, 1})), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")))
	if err != nil {
		t.Fatal(err)
	}
	frame := func(port uint16, payload []byte) []byte {
		out := make([]byte, addresses+2+20+udpHead)
		binary.BigEndian.PutUint16(out[addresses:], typeIPv4)
		out[14], out[14+9] = 0x45, 17
		binary.BigEndian.PutUint16(out[36:], port)
		out[40] = 0xaa // of the checksum
		return append(out, payload...)
	}
	read := func(frame []byte) *dhcpv4.DHCPv4 {
		t.Helper()
		got, err := dhcpv4.FromBytes(udp(frame)[udpHead:])
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	r := &pxeROM{}
	changed := r.out(frame(dhcpv4.ServerPort, m.ToBytes()))
	if got := read(changed); got.UserClass() != nil || got.Options.Has(dhcpv4.GenericOptionCode(175)) || got.ClassIdentifier() != "PXEClient" || got.TransactionID != m.TransactionID {
		t.Errorf("the server hears:\n%s", got.Summary())
	}
	if changed[40] != 0 || r.asked.Load() != 1 {
		t.Errorf("%d messages, a checksum that begins with %#x", r.asked.Load(), changed[40])
	}
	r.out(frame(tftpPort, []byte("\x00\x01a/loader\x00octet\x00")))
	if name := r.loaded.Load(); name != "a/loader" {
		t.Errorf("it loaded %v", name)
	}
	if got := read(r.out(frame(dhcpv4.ServerPort, m.ToBytes()))); !got.Options.Has(dhcpv4.GenericOptionCode(175)) || got.UserClass() == nil {
		t.Errorf("what it has loaded says:\n%s", got.Summary())
	}
}
