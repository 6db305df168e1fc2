package attestation

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// keep puts data where a TPM keeps it.
func keep(t *testing.T, chip transport.TPM, index tpm2.TPMHandle, data string) {
	t.Helper()
	area := tpm2.TPMSNVPublic{NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, AuthWrite: true, AuthRead: true, OwnerRead: true, NoDA: true}}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, PublicInfo: tpm2.New2B(area)}).Execute(chip); err != nil {
		t.Fatal(err)
	}
	known, err := tpm2.NVReadPublic{NVIndex: index}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(data); at += 256 {
		_, err := tpm2.NVWrite{AuthHandle: tpm2.AuthHandle{Handle: index, Name: known.NVName, Auth: tpm2.PasswordAuth(nil)}, NVIndex: tpm2.NamedHandle{Handle: index, Name: known.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: []byte(data[at:min(len(data), at+256)])}, Offset: uint16(at)}.Execute(chip)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// log is a firmware's, in the form of the TCG PC Client Platform Firmware Profile 1.06, 10.
type log struct{ strings.Builder }

func newLog() *log {
	l := &log{}
	identity := "Spec ID Event03\x00" + "\x00\x00\x00\x00" + "\x00\x02\x00\x02" + "\x01\x00\x00\x00" + "\x0b\x00\x20\x00" + "\x00" // one bank, of SHA-256
	l.numbers(0, 3)
	l.WriteString(strings.Repeat("\x00", 20))
	l.data(identity)
	return l
}

func (l *log) numbers(all ...uint32) {
	for _, n := range all {
		l.Write(binary.LittleEndian.AppendUint32(nil, n))
	}
}

func (l *log) data(text string) {
	l.numbers(uint32(len(text)))
	l.WriteString(text)
}

// event notes that measured was measured, and says of it text.
func (l *log) event(pcr, kind uint32, measured, text string) {
	digest := sha256.Sum256([]byte(measured))
	l.numbers(pcr, kind, 1)
	l.WriteString("\x0b\x00" + string(digest[:]))
	l.data(text)
}

// variable is a variable of the firmware as it stands in its log: UEFI_VARIABLE_DATA.
func variable(name, value string) string {
	out := binary.LittleEndian.AppendUint64(make([]byte, 16), uint64(len(name)))
	out = binary.LittleEndian.AppendUint64(out, uint64(len(value)))
	for _, c := range []byte(name) {
		out = append(out, c, 0)
	}
	return string(out) + value
}

// A log may say anything.
func FuzzExplain(f *testing.F) {
	l := newLog()
	l.event(7, 0x80000001, "SecureBoot", variable("SecureBoot", "\x01"))
	l.event(7, 0x800000e0, "db", variable("db", strings.Repeat("x", 60)))
	l.event(4, 0x80000003, "a program", strings.Repeat("\x04\x04\x08\x00a\x00b\x00", 8))
	f.Add([]byte(l.String()))
	f.Add([]byte("no log"))
	values := make([][]byte, registers)
	for i := range values {
		values[i] = make([]byte, sha256.Size)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, err := explain(values, raw)
		for _, one := range all {
			if one.GetLog() == "Complete" && err == nil && len(one.GetEvents()) > 0 {
				t.Errorf("events give %s, which is no hash of anything", one.GetSha256())
			}
		}
	})
}
