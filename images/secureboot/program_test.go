package secureboot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/keyfile"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testSigner(t *testing.T, name string) Signer {
	t.Helper()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := selfSigned(key, name, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return Signer{Key: key, Certificate: certificate, Time: epoch}
}

func sign(t *testing.T, s Signer, program []byte) []byte {
	t.Helper()
	signed, err := s.SignProgram(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(content.Reader(signed))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestASignedProgramIsGoodForOthers(t *testing.T) {
	s, other := testSigner(t, "who signs"), testSigner(t, "another")
	// One with a length that is no multiple of 8 as well: a signature begins at one. What is behind the sections makes sbverify warn, no more.
	for _, program := range [][]byte{ukitest.Program("text"), append(ukitest.Program("text"), "odd"...)} {
		data := sign(t, s, program)
		if !bytes.Equal(data, sign(t, s, program)) {
			t.Fatal("signed twice, it is not the same")
		}
		dir := t.TempDir()
		file, certificate, wrong := filepath.Join(dir, "a.efi"), filepath.Join(dir, "a.crt"), filepath.Join(dir, "b.crt")
		write(t, file, data)
		write(t, certificate, certificatePEM(s.Certificate))
		write(t, wrong, certificatePEM(other.Certificate))
		if out := judge.Run(t, "sbverify", "--cert", certificate, file); !strings.Contains(out, "Signature verification OK") || len(program)%8 == 0 && strings.Contains(out, "warning") {
			t.Errorf("sbverify: %s", out)
		}
		judge.Fails(t, "sbverify", "--cert", wrong, file)
		// It also computes the page hashes and the chain.
		if out := judge.Run(t, "osslsigncode", "verify", "-CAfile", certificate, "-in", file); !strings.Contains(out, "Number of verified signatures: 1") {
			t.Errorf("osslsigncode: %s", out)
		}
	}
}

func TestWhatASignatureCovers(t *testing.T) {
	s := testSigner(t, "who signs")
	data := sign(t, s, ukitest.Program("text"))
	all, err := Signatures(bytes.NewReader(data))
	if err != nil || len(all) != 1 || all[0].Wrong != nil || !all[0].Certificate.Equal(s.Certificate) || !all[0].Key().Equal(s.Key.Public()) {
		t.Fatalf("Signatures = %v, %v", all, err)
	}
	p, err := openProgram(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	// Every byte but the checksum; where the table of certificates is, is not covered but needed.
	for at := range p.table {
		changed := bytes.Clone(data)
		changed[at] ^= 1
		free := at >= p.checkSum && at < p.checkSum+4
		all, err := Signatures(bytes.NewReader(changed))
		if good := err == nil && len(all) == 1 && all[0].Wrong == nil; good != free {
			t.Errorf("byte %#x changed: %v, %v", at, all, err)
		}
	}
	for name, b := range map[string][]byte{
		"another's":    sign(t, testSigner(t, "who signs"), ukitest.Program("test"))[p.table:],
		"cut":          append(bytes.Clone(data[p.table:len(data)-16]), make([]byte, 16)...),
		"of no length": append([]byte{0, 0, 0, 0}, data[p.table+4:]...),
	} {
		all, err := Signatures(bytes.NewReader(append(bytes.Clone(data[:p.table]), b...)))
		if err == nil && len(all) == 1 && all[0].Wrong == nil {
			t.Errorf("%s: a good signature", name)
		}
	}
	if all, err := Signatures(bytes.NewReader(ukitest.Program("text"))); err != nil || all != nil {
		t.Errorf("of one that is not signed: %v, %v", all, err)
	}
}

func TestWhatCannotBeSigned(t *testing.T) {
	s := testSigner(t, "who signs")
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := ukitest.Program("text")
	gap := append(bytes.Clone(good), make([]byte, 512)...)
	gap[bytes.Index(gap, []byte(".text"))+21] = 6 // PointerToRawData = 0x600
	for name, tc := range map[string]struct {
		signer  Signer
		program []byte
		want    string
	}{
		"signed":      {s, sign(t, s, good), "is signed already"},
		"gap":         {s, gap, errGaps.Error()},
		"no program":  {s, []byte("#!/bin/sh\n"), "EOF"},
		"cut":         {s, good[:1100], "sections end at"},
		"kind of key": {Signer{Key: elliptical, Certificate: s.Certificate}, good, errNotRSA.Error()},
		"other's key": {Signer{Key: testSigner(t, "b").Key, Certificate: s.Certificate}, good, "the key is not that of the certificate of CN=who signs"},
		"broken key":  {Signer{Key: broken{s.Key}, Certificate: s.Certificate}, good, "the token is gone"},
	} {
		if _, err := tc.signer.SignProgram(bytes.NewReader(tc.program)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: SignProgram = %v; want %q", name, err, tc.want)
		}
	}
}

// broken is a key that cannot be reached.
type broken struct{ crypto.Signer }

func (broken) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the token is gone")
}

// FuzzSignatures: whatever the program, it has no good signature that nobody has made.
func FuzzSignatures(f *testing.F) {
	f.Add(ukitest.Program("text"))
	f.Add(ukitest.Program("text")[:700])
	f.Fuzz(func(t *testing.T, program []byte) {
		all, err := Signatures(bytes.NewReader(program))
		for _, s := range all {
			if err == nil && s.Key() != nil {
				t.Error("a good signature")
			}
		}
	})
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func certificatePEM(c *x509.Certificate) []byte { return keyfile.PEM("CERTIFICATE", c.Raw) }
