package userdata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// host is VMware's side of the channel, as guest_msg_def.h of open-vm-tools has it.
type host struct {
	variables map[string]string
	fail      uint32 // the message that is refused
	silent    bool   // it takes questions and does not reply

	open        bool
	size, taken int
	question    []byte
	reply       string
}

const hostChannel, hostHigh, hostLow = 3, 0xaaaa5555, 0x12345678

func (h *host) call(r *registers) error {
	what := r.cx >> 16
	if r.ax != backdoorMagic || r.cx&0xffff != commandMessage || r.dx&0xffff != backdoorPort {
		return errors.New("general protection fault")
	}
	ok := what != h.fail
	if what != messageOpen {
		ok = ok && h.open && r.dx>>16 == hostChannel && r.si == hostHigh && r.di == hostLow
	}
	r.cx &= 0xffff
	if !ok {
		return nil
	}
	status := uint32(statusSuccess)
	switch what {
	case messageOpen:
		if h.open || r.bx != protocolRPCI|flagCookie {
			return nil
		}
		h.open, h.question, h.taken = true, nil, 0
		r.dx, r.si, r.di = hostChannel<<16|backdoorPort, hostHigh, hostLow
	case messageSendSize:
		h.size = int(r.bx)
	case messageSendPayload:
		h.question = binary.LittleEndian.AppendUint32(h.question, r.bx)
	case messageReceiveSize:
		if h.silent || len(h.question) < h.size {
			break
		}
		name := strings.TrimPrefix(string(h.question[:h.size]), "info-get ")
		h.reply = "0 No value found"
		if value, ok := h.variables[name]; ok {
			h.reply = "1 " + value
		}
		status |= statusReply
		r.bx, r.dx = uint32(len(h.reply)), messageSendSize<<16|r.dx&0xffff
	case messageReceivePayload:
		var word [4]byte
		h.taken += copy(word[:], h.reply[h.taken:])
		r.bx, r.dx = binary.LittleEndian.Uint32(word[:]), messageSendPayload<<16|r.dx&0xffff
	case messageClose:
		h.open = false
	}
	r.cx |= status << 16
	return nil
}

func TestRPC(t *testing.T) {
	long := strings.Repeat("user data ", 6554)
	h := &host{fail: ^uint32(0), variables: map[string]string{"a": "1", "empty": "", "long": long}}
	for question, want := range map[string]string{"info-get a": "1 1", "info-get empty": "1 ", "info-get b": "0 No value found", "info-get long": "1 " + long} {
		got, err := (&rpc{call: h.call}).ask(question)
		if got != want || err != nil || h.open {
			t.Errorf("ask(%q) = %.50q, %v, channel open %v; want %.50q", question, got, err, h.open, want)
		}
	}
}

func TestRPCFailsInWords(t *testing.T) {
	for what, want := range map[uint32]string{
		messageOpen: "refuses message 0", messageSendSize: "refuses message 1", messageSendPayload: "refuses message 2", messageReceiveSize: "refuses message 3",
		messageReceivePayload: "refuses message 4", messageReceiveStatus: "refuses message 5", messageClose: "refuses message 6",
	} {
		h := &host{fail: what}
		if _, err := (&rpc{call: h.call}).ask("info-get a"); err == nil || !strings.Contains(err.Error(), want) || h.open != (what == messageClose) {
			t.Errorf("message %d refused: %v, channel open %v; want %q", what, err, h.open, want)
		}
	}
	h := &host{fail: ^uint32(0), silent: true}
	if _, err := (&rpc{call: h.call}).ask("info-get a"); err == nil || !strings.Contains(err.Error(), "does not reply") {
		t.Errorf("no reply: %v", err)
	}
}

func TestDecodeGuestinfo(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte(document1))
	z.Close()
	plain, zipped := base64.StdEncoding.EncodeToString([]byte(document1)), base64.StdEncoding.EncodeToString(packed.Bytes())
	for _, c := range []struct{ text, encoding, want, wantErr string }{
		{document1, "", document1, ""},
		{plain + "\n", "base64", document1, ""},
		{plain, "b64", document1, ""},
		{zipped, "gzip+base64", document1, ""},
		{zipped, "gz+b64", document1, ""},
		{plain, "gz+b64", "", "invalid header"},
		{"#", "base64", "", "illegal base64"},
		{plain, "rot13", "", `encoding "rot13"`},
	} {
		got, err := decodeGuestinfo(c.text, c.encoding)
		if string(got) != c.want || (err == nil) != (c.wantErr == "") || err != nil && !strings.Contains(err.Error(), c.wantErr) {
			t.Errorf("decodeGuestinfo(%.20q, %q) = %q, %v; want %q, %q", c.text, c.encoding, got, err, c.want, c.wantErr)
		}
	}
}

// TestAProcessorThatRefusesThePort: whoever is not VMware's faults at the instruction. That is an error, and no end of the process.
func TestAProcessorThatRefusesThePort(t *testing.T) {
	if onVMware() {
		t.Skip("the machine of the test is VMware's: it has the backdoor")
	}
	if err := backdoor(&registers{ax: backdoorMagic, cx: 10, dx: backdoorPort}); err == nil {
		t.Error("the port answers on a machine that is not VMware's")
	}
}
