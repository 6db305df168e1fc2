package tpmseal

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cosi-os/cosi/hack/swtpmtest"
)

// vendor signs what PCR 11 may hold.
type vendor struct{ *rsa.PrivateKey }

func newVendor(t *testing.T) vendor {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return vendor{key}
}

// signs is the boot of an image whose PCR 11 was extended with each of measured once.
func (v vendor) signs(t *testing.T, measured ...string) Boot {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(v.Public())
	if err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Policy    string `json:"pol"`
		Signature []byte `json:"sig"`
	}
	var all []entry
	for _, text := range measured {
		digest := sha256.Sum256([]byte(text))
		pcr := sha256.Sum256(append(make([]byte, 32), digest[:]...))
		held := sha256.Sum256(pcr[:])
		c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
		if err != nil {
			t.Fatal(err)
		}
		if err := (tpm2.PolicyPCR{PcrDigest: tpm2.TPM2BDigest{Buffer: held[:]}, Pcrs: selection(signedPCRs)}).Update(c); err != nil {
			t.Fatal(err)
		}
		policy := c.Hash().Digest
		digest = sha256.Sum256(policy)
		signature, err := rsa.SignPKCS1v15(rand.Reader, v.PrivateKey, crypto.SHA256, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{hex.EncodeToString(policy), signature})
	}
	signatures, err := json.Marshal(map[string][]entry{"sha256": all})
	if err != nil {
		t.Fatal(err)
	}
	return Boot{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), signatures}
}

// parsed is a token as it comes back from a header.
func parsed(t *testing.T, token *Token) *Token {
	t.Helper()
	raw, err := json.Marshal(token)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestASignedImageAndNoOtherGetsTheSecret(t *testing.T) {
	ours, theirs, dir := newVendor(t), newVendor(t), swtpmtest.Dir(t)
	socket, off := swtpmtest.Run(t, dir)
	chip := swtpmtest.Open(t, socket)
	swtpmtest.Extend(t, chip, 11, "version 1")
	v1 := ours.signs(t, "version 1")
	passphrase, sealed, err := Seal(chip, v1)
	if err != nil {
		t.Fatal(err)
	}
	sealed = parsed(t, sealed)
	if sealed.Describe() != "PCR 7 and a signed PCR 11" {
		t.Errorf("Describe = %q", sealed.Describe())
	}
	for range 5 { // nothing is left in the TPM: three objects are all it has room for
		if got, err := sealed.Unseal(chip, v1); err != nil || !bytes.Equal(got, passphrase) {
			t.Fatalf("in the same boot: %q, %v", got, err)
		}
	}
	for name, c := range map[string]struct {
		boot Boot
		want string
	}{
		"an image without a policy": {Boot{}, "the image has no signed policy"},
		"another value was signed":  {ours.signs(t, "version 2"), "is not what it holds"},
		"another vendor signed":     {theirs.signs(t, "version 1"), "signed with another key"},
	} {
		if _, err := sealed.Unseal(chip, c.boot); !errors.Is(err, ErrOtherBoot) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want …%s", name, err, c.want)
		}
	}
	if _, _, err := Seal(chip, ours.signs(t, "version 2")); err == nil {
		t.Error("sealed for boots that are not like this one")
	}
	chip.Close()
	off() // without a word to it, as in a loss of power
	socket, _ = swtpmtest.Run(t, dir)
	chip = swtpmtest.Open(t, socket)
	swtpmtest.Extend(t, chip, 11, "version 2")
	if got, err := sealed.Unseal(chip, ours.signs(t, "version 0", "version 2")); err != nil || !bytes.Equal(got, passphrase) {
		t.Errorf("an upgrade: %q, %v", got, err)
	}
	swtpmtest.Extend(t, chip, 7, "other keys")
	if _, err := sealed.Unseal(chip, ours.signs(t, "version 2")); !errors.Is(err, ErrOtherBoot) || !strings.Contains(err.Error(), "PCR [7]") {
		t.Errorf("under another Secure Boot: %v", err)
	}
}

func TestWithoutAPolicyOfTheImage(t *testing.T) {
	chip := swtpmtest.Open(t, swtpmtest.Start(t))
	passphrase, sealed, err := Seal(chip, Boot{})
	if err != nil {
		t.Fatal(err)
	}
	sealed = parsed(t, sealed)
	if got, err := sealed.Unseal(chip, Boot{}); err != nil || !bytes.Equal(got, passphrase) || sealed.Describe() != "PCR 7" {
		t.Errorf("%s: %q, %v", sealed.Describe(), got, err)
	}
	other := swtpmtest.Open(t, swtpmtest.Start(t))
	if _, err := sealed.Unseal(other, Boot{}); !errors.Is(err, ErrOtherTPM) {
		t.Errorf("another TPM: %v", err)
	}
	swtpmtest.Extend(t, chip, 7, "other keys")
	if _, err := sealed.Unseal(chip, Boot{}); !errors.Is(err, ErrOtherBoot) {
		t.Errorf("under another Secure Boot: %v", err)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	for _, raw := range []string{
		`[]`, `{"type":"other"}`,
		`{"type":"cosi-tpm2","tpm2-pcr-bank":"sha256","tpm2-primary-alg":"ecc","tpm2-pcrs":[7],"tpm2-pin":true}`,
		`{"type":"cosi-tpm2","tpm2-pcr-bank":"sha1","tpm2-primary-alg":"ecc","tpm2-pcrs":[7]}`,
		`{"type":"cosi-tpm2","tpm2-pcr-bank":"sha256","tpm2-primary-alg":"ecc","tpm2-pcrs":[4000000000]}`,
		`{"type":"cosi-tpm2","tpm2-pcr-bank":"sha256","tpm2-primary-alg":"ecc"}`,
	} {
		if _, err := Parse([]byte(raw)); err == nil {
			t.Errorf("%s is taken", raw)
		}
	}
	chip := swtpmtest.Open(t, swtpmtest.Start(t))
	for _, blob := range []string{"", "\xff\xff", "\x00\x01x", "\x00\x00\xff\xff"} {
		token := &Token{Blob: []byte(blob), PCRs: fixedPCRs}
		if _, err := token.Unseal(chip, Boot{}); err == nil {
			t.Errorf("%q is opened", blob)
		}
	}
}
