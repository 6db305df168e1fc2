//go:build pkcs11

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/cosi-os/cosi/images/internal/judge"
	"github.com/cosi-os/cosi/images/internal/softhsm"
)

// imported is a token "build" with the keys "rsa" (id 01), "ed" (02) and "ec" (03), small ones. It returns a module and a directory
// with the files of the keys.
func imported(t *testing.T) (module, dir string) {
	t.Helper()
	module, dir = softhsm.New(t), t.TempDir()
	softhsm.Token(t, "build")
	for label, how := range map[string][]string{
		"rsa": {"01", "RSA", "rsa_keygen_bits:1024"}, "ed": {"02", "ED25519"}, "ec": {"03", "EC", "ec_paramgen_curve:P-256"},
	} {
		file := filepath.Join(dir, label)
		arguments := []string{"genpkey", "-algorithm", how[1], "-out", file}
		for _, option := range how[2:] {
			arguments = append(arguments, "-pkeyopt", option)
		}
		judge.Run(t, "openssl", arguments...)
		softhsm.Import(t, "build", file, label, how[0])
	}
	return module, dir
}

func read(t *testing.T, file string) crypto.Signer {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func opened(t *testing.T, text string) (Key, error) {
	t.Helper()
	u, err := Parse(text, "")
	if err != nil {
		t.Fatal(err)
	}
	return Open(u)
}

// unloaded fails if a module is still there.
func unloaded(t *testing.T) {
	t.Helper()
	if len(modules.loaded) > 0 {
		t.Errorf("still loaded: %v", modules.loaded)
	}
}

func TestATokenSignsAsAFileDoes(t *testing.T) {
	module, dir := imported(t)
	message := []byte("what is signed")
	digest := sha256.Sum256(message)
	how := "?module-path=" + module + "&pin-value=" + softhsm.Escaped
	var keys []Key
	for text, tc := range map[string]struct {
		file   string
		digest []byte
		hash   crypto.Hash
	}{
		"pkcs11:token=build;object=rsa":                                        {"rsa", digest[:], crypto.SHA256},
		"pkcs11:model=SoftHSM%20v2;token=build;id=%01;object=rsa;type=private": {"rsa", digest[:], crypto.SHA256},
		"pkcs11:id=%02": {"ed", message, 0},
	} {
		key, err := opened(t, text+how)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		file := read(t, filepath.Join(dir, tc.file))
		if !file.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: the public key is %v", text, key.Public())
		}
		want, err := file.Sign(rand.Reader, tc.digest, tc.hash)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := key.Sign(nil, tc.digest, tc.hash); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: signature %x, %v; want %x", text, got, err, want)
			}
		}
		for _, other := range []crypto.SignerOpts{crypto.SHA512, crypto.SHA1, &rsa.PSSOptions{Hash: crypto.SHA256}} {
			if _, err := key.Sign(nil, tc.digest, other); err == nil || !strings.Contains(err.Error(), text+": asked for another signature") {
				t.Errorf("%s: by %T %v: %v", text, other, other, err)
			}
		}
	}
	for _, key := range keys {
		if err := key.Close(); err != nil {
			t.Error(err)
		}
	}
	unloaded(t)
}

func TestEachSignatureMayTakeThePIN(t *testing.T) {
	module, _ := imported(t)
	how := "?module-path=" + module + "&pin-value=" + softhsm.Escaped
	makeAnother(t, "pkcs11:object=rsa"+how, p11.NewAttribute(p11.CKA_LABEL, "each"), p11.NewAttribute(p11.CKA_ALWAYS_AUTHENTICATE, true))
	each, err := opened(t, "pkcs11:object=each"+how)
	if err != nil {
		t.Fatal(err)
	}
	defer each.Close()
	digest := sha256.Sum256(nil)
	for range 2 {
		signature, err := each.Sign(nil, digest[:], crypto.SHA256)
		if err == nil {
			err = rsa.VerifyPKCS1v15(each.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], signature)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// makeAnother makes a private key of these attributes in the token of another one.
func makeAnother(t *testing.T, other string, private ...*p11.Attribute) {
	t.Helper()
	signer, err := opened(t, other)
	if err != nil {
		t.Fatal(err)
	}
	defer signer.Close()
	m := signer.(*key).module
	slot, _, err := m.token(&URI{})
	if err != nil {
		t.Fatal(err)
	}
	session, err := m.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	public := []*p11.Attribute{p11.NewAttribute(p11.CKA_MODULUS_BITS, 1024), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	private = append(private, p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_SIGN, true))
	if _, _, err = m.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}, public, private); err != nil {
		t.Fatal(err)
	}
}

func TestWhatOpensNoKey(t *testing.T) {
	module, dir := imported(t)
	with := "?module-path=" + module
	how := with + "&pin-value=" + softhsm.Escaped
	none, text := filepath.Join(dir, "none"), filepath.Join(dir, "rsa")
	for _, tc := range []struct{ uri, want string }{
		{"pkcs11:object=rsa", `: no module: want module-path=FILE behind the "?", or COSI_PKCS11_MODULE in the environment`},
		{"pkcs11:object=rsa?module-path=" + none, ": module: lstat " + none + ": no such file"},
		{"pkcs11:object=rsa?module-path=" + text, ": module: " + text + " is no PKCS #11 module that this machine can load"},
		{"pkcs11:token=other;object=rsa" + how, `: no such token is there: "build" with serial "`},
		{"pkcs11:slot-id=99" + how, `: no such token is there: "build" with serial "`},
		{"pkcs11:token=build;object=none" + how, `: token "build": no such private key is there`},
		{"pkcs11:object=rsa;id=%02" + how, `: token "build": no such private key is there`},
		{"pkcs11:token=build" + how, `: token "build": this is 3 private keys, say which by object or id`},
		{"pkcs11:object=ec" + how, `: token "build": the key is an EC key: firmware and TPMs want RSA, upgrades Ed25519`},
		{"pkcs11:object=rsa" + with, `: token "build": no PIN: want pin-source=FILE behind the "?", or COSI_PKCS11_PIN in the environment`},
		{"pkcs11:object=rsa" + with + "&pin-source=" + none, `: token "build": pin-source: open ` + none + ": no such file"},
		{"pkcs11:object=rsa" + with + "&pin-value=7350", `: token "build": the PIN is wrong; it was tried once, as tokens lock themselves: `},
	} {
		key, err := opened(t, tc.uri)
		bare, _, _ := strings.Cut(tc.uri, "?")
		if err == nil || !strings.HasPrefix(err.Error(), bare+tc.want) {
			t.Errorf("%s: %v, %v; want %s", tc.uri, key, err, tc.want)
		} else if strings.Contains(err.Error(), "735") || strings.Contains(err.Error(), "pin-value") {
			t.Errorf("%s: the PIN is in %q", tc.uri, err)
		}
		unloaded(t)
	}
	softhsm.Token(t, "build")
	if _, err := opened(t, "pkcs11:token=build"+how); err == nil || !strings.Contains(err.Error(), `: this is more than one token, say which by serial: "build" with serial "`) {
		t.Errorf("with two tokens: %v", err)
	}
	t.Setenv("SOFTHSM2_CONF", os.DevNull)
	if _, err := opened(t, "pkcs11:token=build"+how); err == nil {
		t.Error("a module that does not start has a key")
	}
	unloaded(t)
}

func TestWhereThePINIs(t *testing.T) {
	module, dir := imported(t)
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte(softhsm.PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(query string) {
		t.Helper()
		key, err := opened(t, "pkcs11:object=rsa"+query)
		if err != nil {
			t.Error(err)
			return
		}
		key.Close()
	}
	open("?module-path=" + module + "&pin-source=file:" + pin)
	t.Setenv("COSI_PKCS11_PIN", softhsm.PIN)
	open("?module-path=" + module)
	t.Setenv("COSI_PKCS11_MODULE", module)
	open("")
	t.Setenv("COSI_PKCS11_PIN", "wrong")
	open("?pin-value=" + softhsm.Escaped)
}

// A token that locks itself after one more wrong PIN is not given any.
func TestTheLastTryIsNotMade(t *testing.T) {
	for flags, want := range map[uint]string{
		p11.CKF_USER_PIN_COUNT_LOW:                              "",
		p11.CKF_USER_PIN_COUNT_LOW | p11.CKF_USER_PIN_FINAL_TRY: "it was given wrong PINs, and the next one would lock it",
		p11.CKF_USER_PIN_LOCKED:                                 "its PIN is locked",
	} {
		if err := mayTry(flags); (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("mayTry(%#x) = %v; want %q", flags, err, want)
		}
	}
}
