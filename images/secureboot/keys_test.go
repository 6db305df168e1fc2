package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/cosi-os/cosi/images/internal/judge"
)

func TestKeysAreMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	names, err := WriteKeys(dir, "mine", epoch)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if private := filepath.Ext(name) == ".key"; private != (info.Mode().Perm() == 0o600) {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if want := []string{"KEK.auth", "KEK.crt", "KEK.key", "PK.auth", "PK.crt", "PK.key", "db.auth", "db.crt", "db.key", "pcr.key", "pcr.pub"}; !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("made %q; want %q", names, want)
	}
	key, err := ReadKey(filepath.Join(dir, "db.key"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ReadCertificate(filepath.Join(dir, "db.crt"))
	if err != nil || certificate.Subject.String() != "CN=mine db" {
		t.Fatalf("%v, %v", certificate, err)
	}
	if err := (Signer{Key: key, Certificate: certificate}).check(); err != nil {
		t.Error(err)
	}
	policy, err := ReadKey(filepath.Join(dir, "pcr.key"))
	if err != nil {
		t.Fatal(err)
	}
	if public, err := ReadPublicKey(filepath.Join(dir, "pcr.pub")); err != nil || !public.Equal(policy.Public()) {
		t.Errorf("pcr.pub: %v", err)
	}
	if _, err := WriteKeys(dir, "mine", epoch); err == nil || !strings.Contains(err.Error(), "db.key is there already") {
		t.Errorf("WriteKeys again = %v", err)
	}
	again, err := ReadKey(filepath.Join(dir, "db.key"))
	if err != nil || (Signer{Key: again, Certificate: certificate}).check() != nil {
		t.Errorf("the key was replaced: %v", err)
	}
}

// A firmware checks an enrolment as this does: by what stands in the file, as UEFI lays it out.
func TestAnEnrolmentIsSignedByWhoMay(t *testing.T) {
	dir := t.TempDir()
	if _, err := WriteKeys(dir, "mine", epoch); err != nil {
		t.Fatal(err)
	}
	vendors := map[Variable]string{PK: globalVendor, KEK: globalVendor, DB: securityVendor}
	for variable, by := range map[Variable]Variable{PK: PK, KEK: PK, DB: KEK} {
		data, err := os.ReadFile(filepath.Join(dir, string(variable)+".auth"))
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := ReadCertificate(filepath.Join(dir, string(by)+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		enrolled, err := ReadCertificate(filepath.Join(dir, string(variable)+".crt"))
		if err != nil {
			t.Fatal(err)
		}
		at, entry := data[:16], data[16:]
		if string(at[:7]) != "\xea\x07\x01\x02\x03\x04\x05" || !bytes.Equal(at[7:], make([]byte, 9)) {
			t.Errorf("%s: time % x", variable, at)
		}
		length := binary.LittleEndian.Uint32(entry)
		list := entry[length:]
		if binary.LittleEndian.Uint32(list[16:]) != uint32(len(list)) || !bytes.Equal(list[28+16:], enrolled.Raw) {
			t.Errorf("%s: the list is not its certificate", variable)
		}
		signed := slices.Concat(wide(string(variable)), []byte(vendors[variable]), []byte{0x27, 0, 0, 0}, at, list)
		message, err := wrap(entry[24:length])
		if err != nil {
			t.Fatal(err)
		}
		m, err := pkcs7.Parse(message)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Content) != 0 || len(m.Signers) != 1 || len(m.Signers[0].AuthenticatedAttributes) != 0 {
			t.Errorf("%s: %d bytes in it, %d signers", variable, len(m.Content), len(m.Signers))
		}
		if err := certificate.CheckSignature(x509.SHA256WithRSA, signed, m.Signers[0].EncryptedDigest); err != nil {
			t.Errorf("%s: by %s: %v", variable, by, err)
		}
		// OpenSSL is what firmware has.
		file, content, pem := filepath.Join(dir, "message"), filepath.Join(dir, "content"), filepath.Join(dir, string(by)+".crt")
		write(t, file, message)
		write(t, content, signed)
		judge.Run(t, "openssl", "smime", "-verify", "-inform", "DER", "-in", file, "-content", content, "-binary", "-noverify", "-certfile", pem, "-out", os.DevNull)
	}
}

// The vendors of variables as they are in memory.
const (
	globalVendor   = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"
	securityVendor = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"
)

func wide(text string) (out []byte) {
	for _, c := range []byte(text) {
		out = append(out, c, 0)
	}
	return out
}

func TestWhatIsNoKey(t *testing.T) {
	dir := t.TempDir()
	if _, err := WriteKeys(dir, "mine", epoch); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, in("text"), []byte("no PEM"))
	judge.Run(t, "openssl", "genpkey", "-algorithm", "ed25519", "-out", in("ed.key"))
	judge.Run(t, "openssl", "pkey", "-in", in("ed.key"), "-pubout", "-out", in("ed.pub"))
	judge.Run(t, "openssl", "req", "-x509", "-key", in("ed.key"), "-subj", "/CN=ed", "-out", in("ed.crt"))
	judge.Run(t, "openssl", "pkey", "-in", in("db.key"), "-aes256", "-passout", "pass:x", "-out", in("closed.key"))
	judge.Run(t, "openssl", "pkey", "-in", in("db.key"), "-traditional", "-out", in("old.key"))
	if _, err := ReadKey(in("old.key")); err != nil {
		t.Errorf("PKCS #1: %v", err)
	}
	key := func(name string) error { _, err := ReadKey(in(name)); return err }
	certificate := func(name string) error { _, err := ReadCertificate(in(name)); return err }
	public := func(name string) error { _, err := ReadPublicKey(in(name)); return err }
	for _, tc := range []struct {
		read       func(string) error
		name, want string
	}{
		{key, "none", "no such file"}, {key, "text", "is no PEM"}, {key, "db.crt", "holds a CERTIFICATE: want a PRIVATE KEY"},
		{key, "closed.key", "is encrypted"}, {key, "ed.key", "is no RSA key"},
		{certificate, "text", "is no PEM"}, {certificate, "db.key", "holds a PRIVATE KEY: want a CERTIFICATE"}, {certificate, "ed.crt", "is no RSA key"},
		{public, "text", "is no PEM"}, {public, "pcr.key", "holds a PRIVATE KEY: want a PUBLIC KEY"}, {public, "ed.pub", "is no RSA key"},
	} {
		if err := tc.read(tc.name); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.name) {
			t.Errorf("%s: %v; want %q", tc.name, err, tc.want)
		}
	}
}
