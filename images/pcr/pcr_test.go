package pcr

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/images/uki"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

// parts are what testdata/pcrsig.json was made of, by systemd-measure of systemd 252 with swtpm as its TPM:
//
//	systemd-measure sign --linux=… --osrel=… --cmdline=… --initrd=… --pcrpkey=key.pub --bank=sha256 --phase= --private-key=key.pem --public-key=key.pub
var parts = map[string]string{"linux": "a kernel", "osrel": "ID=cosi\n", "cmdline": "x=y", "initrd": "an initrd"}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// image is an EFI program with sections.
func image(t *testing.T, sections map[string]string) content.Content {
	t.Helper()
	return bytes.NewReader(ukitest.Sections(sections))
}

func testImage(t *testing.T) content.Content {
	sections := map[string]string{".pcrpkey": string(read(t, "key.pub")), ".pcrsig": "not measured", ".other": "nor is this"}
	for name, text := range parts {
		sections["."+name] = text
	}
	return image(t, sections)
}

func TestTheSignatureIsSystemdMeasures(t *testing.T) {
	key, err := secureboot.ReadKey("testdata/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	v, err := Predict(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Sign(v, key)
	if err != nil || !bytes.Equal(got, read(t, "pcrsig.json")) {
		t.Errorf("Sign = %s, %v; want %s", got, err, read(t, "pcrsig.json"))
	}
	policy := v.Policy()
	digest := sha256.Sum256(policy[:])
	all, err := Signatures(append(got, 0, 0))
	if err != nil || len(all) != 1 || rsa.VerifyPKCS1v15(key.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], all[0]) != nil {
		t.Errorf("Signatures = %x, %v", all, err)
	}
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(v, elliptical); err == nil {
		t.Error("signed with a key that is no RSA key")
	}
}

// Every section that is measured makes a difference, and only those.
func TestWhatIsMeasured(t *testing.T) {
	base, err := Predict(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	met := map[Value]string{base: "nothing"}
	for _, name := range []string{".uname", ".sbat", ".ucode", ".splash", ".dtb"} {
		sections := map[string]string{name: "x", ".pcrpkey": string(read(t, "key.pub"))}
		for part, text := range parts {
			sections["."+part] = text
		}
		v, err := Predict(image(t, sections))
		if err != nil || met[v] != "" {
			t.Errorf("%s: as with %s, %v", name, met[v], err)
		}
		met[v] = name
	}
	if v, err := Predict(image(t, map[string]string{".text": "nothing of ours"})); err != nil || v != (Value{}) {
		t.Errorf("without a section of ours: %s, %v", v, err)
	}
	if _, err := Predict(content.String("no program")); err == nil {
		t.Error("predicted for no program")
	}
	if _, err := Signatures([]byte("no JSON")); err == nil {
		t.Error("signatures in no JSON")
	}
}

// What package uki makes is measured whole: its stub's sections and its own.
func TestAUnifiedKernelImageIsMeasured(t *testing.T) {
	join := func(key, signature string) Value {
		t.Helper()
		spec := uki.Spec{CommandLine: "x=y", Uname: "6.12", Initrd: content.String("an initrd"), Linux: bytes.NewReader(ukitest.Program("kernel")), PolicyKey: key, PolicySignature: signature}
		made, err := uki.New(ukitest.Program("stub"), spec)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Predict(made)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if plain, with := join("", ""), join("key", ""); plain == with {
		t.Error("the key of its policy is not measured")
	}
	if unsigned, signed := join("key", ""), join("key", "signature"); unsigned != signed {
		t.Error("the signature of its policy is measured: it could not be over what is measured")
	}
}
