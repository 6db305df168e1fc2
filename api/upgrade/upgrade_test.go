package upgrade

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

var (
	seed  = bytes.Repeat([]byte{7}, ed25519.SeedSize)
	key   = ed25519.NewKeyFromSeed(seed)
	other = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
)

func manifest() Manifest {
	return Manifest{Image: "cosi-base-amd64", Version: "1.2.3+abc", Arch: "amd64", Floor: "1.0.0", Root: Root{Hash: strings.Repeat("ab", 32), Data: 8192}}
}

const rootText, kernelText = "the root", "the kernel"

func content() (root, kernel string) {
	return strings.Repeat(rootText, 2000), strings.Repeat(kernelText, 3000)
}

func made(t *testing.T, key ed25519.PrivateKey) []byte {
	t.Helper()
	root, kernel := content()
	var b bytes.Buffer
	var signer crypto.Signer
	if key != nil {
		signer = key
	}
	if err := Write(&b, manifest(), signer, strings.NewReader(root), strings.NewReader(kernel), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read reads all of an upgrade.
func read(data []byte) (u *Reader, root, kernel string, err error) {
	if u, err = Open(bytes.NewReader(data)); err != nil {
		return u, "", "", err
	}
	var r, k bytes.Buffer
	if err = u.Root(&r); err == nil {
		err = u.Kernel(&k)
	}
	if err == nil {
		err = u.Close()
	}
	return u, r.String(), k.String(), err
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, private := range []ed25519.PrivateKey{nil, key} {
		data := made(t, private)
		if !bytes.Equal(data, made(t, private)) {
			t.Error("written twice it differs")
		}
		u, root, kernel, err := read(data)
		wantRoot, wantKernel := content()
		if err != nil || root != wantRoot || kernel != wantKernel {
			t.Fatalf("read: %v", err)
		}
		if m := u.Manifest; m.Version != "1.2.3+abc" || m.Root.Size != int64(len(root)) || m.Kernel.Size != int64(len(kernel)) {
			t.Errorf("manifest: %+v", m)
		}
		signed := private != nil
		if u.Signed() != signed || u.SignedBy([]ed25519.PublicKey{other.Public().(ed25519.PublicKey), key.Public().(ed25519.PublicKey)}) != signed {
			t.Errorf("with a key %v: Signed %v", signed, u.Signed())
		}
		if u.SignedBy([]ed25519.PublicKey{other.Public().(ed25519.PublicKey)}) || u.SignedBy(nil) {
			t.Error("another's key is taken")
		}
	}
}

// A byte that was changed anywhere is seen: by the hash, by the signature, or by the archive itself.
func TestWhatWasChangedIsSeen(t *testing.T) {
	data := made(t, key)
	if err := Check(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	public := []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}
	for at := 0; at < len(data); at += 101 {
		changed := bytes.Clone(data)
		changed[at] ^= 0x20
		u, root, kernel, err := read(changed)
		wantRoot, wantKernel := content()
		if err == nil && u.SignedBy(public) && (root != wantRoot || kernel != wantKernel || u.Manifest.Version != "1.2.3+abc") {
			t.Errorf("byte %d changed: nobody saw it", at)
		}
	}
	for at := 0; at < len(data)-1024; at += 997 {
		if _, _, _, err := read(data[:at]); err == nil || Check(bytes.NewReader(data[:at])) == nil {
			t.Errorf("cut after %d of %d bytes: nobody saw it", at, len(data))
		}
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	root, kernel := content()
	swap := func(from, to string) []byte {
		return bytes.Replace(made(t, nil), []byte(from), []byte(to), 1)
	}
	for want, data := range map[string][]byte{
		"not the file of an upgrade":              []byte(strings.Repeat("x", 2048)),
		`format 9: want 1`:                        swap(`"format": 1`, `"format": 9`),
		"root: its SHA-256 is ":                   swap(root[:16], "another root text"[:16]),
		"kernel.efi: its SHA-256 is ":             swap(kernel[:16], "another kernel text"[:16]),
		"not the file of an upgrade: unexpected ": nil,
	} {
		if _, _, _, err := read(data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	bad := manifest()
	bad.Root.Hash = "abc"
	if err := Write(&bytes.Buffer{}, bad, nil, strings.NewReader(root), strings.NewReader(kernel), nil); err == nil || !strings.Contains(err.Error(), "root.hash") {
		t.Errorf("Write with a wrong hash = %v", err)
	}
}

func TestKeys(t *testing.T) {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	in := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	if got, err := ParsePrivateKey([]byte(in("PRIVATE KEY", private))); err != nil || !got.Equal(key) {
		t.Errorf("ParsePrivateKey: %v", err)
	}
	if got, err := ParseKey(in("PUBLIC KEY", public)); err != nil || !got.Equal(key.Public()) {
		t.Errorf("ParseKey: %v", err)
	}
	for _, text := range []string{"", "x", in("PRIVATE KEY", private), in("PUBLIC KEY", private)} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("ParseKey(%.30q) takes it", text)
		}
	}
	if _, err := ParsePrivateKey([]byte(in("PUBLIC KEY", public))); err == nil {
		t.Error("ParsePrivateKey takes a public key")
	}
}

func TestOlder(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"0.1.0", "0.2.0", true}, {"0.2.0", "0.1.9", false}, {"0.9.0", "0.10.0", true}, {"1.0", "1.0.1", true}, {"1.0", "1.0.0", false},
		{"1.0.0+abc.dirty", "1.0.0+def", false}, {"v1.2.3", "1.2.4-rc1", true}, {"", "0.0.1", true},
	} {
		if got := Older(test.a, test.b); got != test.want {
			t.Errorf("Older(%q, %q) = %v", test.a, test.b, got)
		}
	}
}
