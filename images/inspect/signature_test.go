package inspect

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/internal/judge"
)

// A module is signed as the kernel's sign-file does it: a CMS message without certificates behind it.
func TestWhoSignedAModule(t *testing.T) {
	dir := t.TempDir()
	key, certificate, module, signature := filepath.Join(dir, "key"), filepath.Join(dir, "cert"), filepath.Join(dir, "a.ko"), filepath.Join(dir, "sig")
	if err := os.WriteFile(module, []byte("a module"), 0o600); err != nil {
		t.Fatal(err)
	}
	judge.Run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=who signs", "-keyout", key, "-out", certificate)
	judge.Run(t, "openssl", "cms", "-sign", "-binary", "-noattr", "-nocerts", "-outform", "DER", "-in", module, "-signer", certificate, "-inkey", key, "-out", signature)
	message, err := os.ReadFile(signature)
	if err != nil {
		t.Fatal(err)
	}
	signed := append([]byte("a module"), message...)
	signed = append(signed, 0, 0, 2, 0, 0, 0, 0, 0)
	signed = binary.BigEndian.AppendUint32(signed, uint32(len(message)))
	signed = append(signed, moduleMagic...)
	if by, err := moduleSigner(signed); err != nil || by != "CN=who signs" {
		t.Errorf("moduleSigner = %q, %v", by, err)
	}
	if by, err := moduleSigner([]byte("a module")); err != nil || by != "" {
		t.Errorf("of one that is not signed: %q, %v", by, err)
	}
	for name, broken := range map[string][]byte{
		"cut off":    signed[len(signed)-len(moduleMagic)-4:],
		"too long":   signed[len(signed)-len(moduleMagic)-12:],
		"no message": append(append([]byte(strings.Repeat("x", len(message))), signed[len(signed)-len(moduleMagic)-12:]...), nil...),
		"no ASN.1":   []byte(strings.Repeat("\x00", 12) + moduleMagic),
	} {
		if by, err := moduleSigner(broken); err == nil {
			t.Errorf("%s: %q", name, by)
		}
	}
}

// FuzzModuleSigner: any bytes are signed by somebody, by nobody, or wrongly.
func FuzzModuleSigner(f *testing.F) {
	f.Add([]byte("a module"))
	f.Add([]byte("\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80"))
	f.Fuzz(func(t *testing.T, message []byte) {
		signed := append(message[:len(message):len(message)], make([]byte, 8)...)
		signed = append(binary.BigEndian.AppendUint32(signed, uint32(len(message))), moduleMagic...)
		if by, err := moduleSigner(signed); err == nil && by == "" {
			t.Error("a signature of nobody")
		}
	})
}
