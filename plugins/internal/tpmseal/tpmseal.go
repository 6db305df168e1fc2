// Package tpmseal gives a secret to a TPM to keep, and gets it back in no other boot than one of the same vendor's images under the same Secure
// Boot. The plugin volume calls it for the keys of volumes.
//
// The policy is that of PCR 7, which is Secure Boot's state and the keys that vouched for what runs, as it is when the secret is sealed. If the image
// has a signed policy (section .pcrpkey), PCR 11, which is the image itself, must hold a value that its key has signed, too: any upgrade of the same
// vendor is good, and no other program that the firmware starts. PCR 11 alone would protect from nobody: whoever starts a program of his own can
// extend it with whatever he likes.
//
// What is kept outside the TPM is a token of LUKS2 with the fields that systemd-cryptenroll's have ("systemd-tpm2"), and their meaning. Its type is
// another, because systemd-cryptsetup would not find the parent of the key: that is the storage root key of the TCG's provisioning guidance, derived
// anew each time and not made persistent, where systemd takes a primary key of its own unless it finds a persistent one. Use of systemd's own
// counts as a failed attempt with each loss of power, until the TPM locks itself out.
//
// The secret is encrypted on its way (a session that is salted with the primary key): who only listens to the bus of the TPM learns nothing.
package tpmseal

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TokenType is the type of a Token in a header of LUKS2.
const TokenType = "cosi-tpm2"

// Errors of Unseal that say what is different.
var (
	// ErrOtherTPM: the secret was sealed by another TPM, or this one was cleared.
	ErrOtherTPM = errors.New("it was sealed by another TPM, or this one was cleared since")
	// ErrOtherBoot: the registers hold something else.
	ErrOtherBoot = errors.New("this machine was booted differently")
)

// Token is what is kept outside the TPM.
type Token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	Blob     []byte   `json:"tpm2-blob"` // TPM2B_PRIVATE and TPM2B_PUBLIC
	PCRs     []uint   `json:"tpm2-pcrs"`
	Bank     string   `json:"tpm2-pcr-bank"`
	Primary  string   `json:"tpm2-primary-alg"`
	Policy   string   `json:"tpm2-policy-hash"`
	PIN      bool     `json:"tpm2-pin"`
	// PublicKey, in PEM, is who signs what SignedPCRs may hold; without, they need not hold anything.
	PublicKey  []byte `json:"tpm2_pubkey,omitempty"`
	SignedPCRs []uint `json:"tpm2_pubkey_pcrs,omitempty"`
}

// Describe is the policy in words.
func (t *Token) Describe() string {
	if len(t.PublicKey) > 0 {
		return "PCR 7 and a signed PCR 11"
	}
	return "PCR 7"
}

// Boot is what the image that runs says of itself; both are empty if it has no policy.
type Boot struct {
	PublicKey  []byte // section .pcrpkey
	Signatures []byte // section .pcrsig
}

// Signed reports whether there is a policy.
func (b Boot) Signed() bool { return len(b.PublicKey) > 0 && len(b.Signatures) > 0 }

// registers is how many a TPM of a PC has.
const registers = 24

var (
	fixedPCRs  = []uint{7}
	signedPCRs = []uint{11}
)

// secretSize is the size of a secret. In base64 it is a passphrase.
const secretSize = 32

// Seal makes a secret and has the TPM keep it for boots like this one. It fails when this boot could not get it back. The Token has no keyslot yet.
func Seal(chip transport.TPM, b Boot) (passphrase []byte, t *Token, err error) {
	t = &Token{Type: TokenType, Keyslots: []string{}, PCRs: fixedPCRs, Bank: "sha256", Primary: "ecc"}
	if b.Signed() {
		t.PublicKey, t.SignedPCRs = b.PublicKey, signedPCRs
	}
	policy, err := t.policy(chip)
	if err != nil {
		return nil, nil, err
	}
	t.Policy = hex.EncodeToString(policy)
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails: see its documentation
	if err := t.create(chip, secret, policy); err != nil {
		return nil, nil, err
	}
	passphrase = []byte(base64.StdEncoding.EncodeToString(secret))
	again, err := t.Unseal(chip, b)
	if err == nil && !bytes.Equal(again, passphrase) {
		err = errors.New("the TPM gives back something else")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("sealed and not opened: %w", err)
	}
	return passphrase, t, nil
}

// create has the TPM encrypt a secret.
func (t *Token) create(chip transport.TPM, secret, policy []byte) error {
	parent, err := newParent(chip)
	if err != nil {
		return err
	}
	defer parent.flush()
	made, err := tpm2.Create{
		ParentHandle: parent.auth(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true}, // by the policy alone: there is no password to guess
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy},
		}),
	}.Execute(chip, tpm2.HMAC(tpm2.TPMAlgSHA256, 16, parent.salted(), tpm2.AESEncryption(128, tpm2.EncryptIn)))
	if err != nil {
		return fmt.Errorf("TPM2_Create: %w", err)
	}
	t.Blob = append(tpm2.Marshal(made.OutPrivate), tpm2.Marshal(made.OutPublic)...)
	return nil
}

// Parse reads a token.
func Parse(raw []byte) (*Token, error) {
	t := &Token{}
	if err := json.Unmarshal(raw, t); err != nil {
		return nil, err
	}
	if t.Type != TokenType || t.Bank != "sha256" || t.Primary != "ecc" || t.PIN {
		return nil, fmt.Errorf("a token of type %q, bank %q, primary key %q, PIN %v: want %s, sha256, ecc, without", t.Type, t.Bank, t.Primary, t.PIN, TokenType)
	}
	if pcrs := slices.Concat(t.PCRs, t.SignedPCRs); len(pcrs) == 0 || len(pcrs) > registers || slices.Max(pcrs) >= registers {
		return nil, fmt.Errorf("a token of PCRs %d", pcrs)
	}
	return t, nil
}

// Unseal gets the secret back. It fails with ErrOtherTPM or ErrOtherBoot if that is why.
func (t *Token) Unseal(chip transport.TPM, b Boot) (passphrase []byte, err error) {
	private, public, err := t.object()
	if err != nil {
		return nil, err
	}
	parent, err := newParent(chip)
	if err != nil {
		return nil, err
	}
	defer parent.flush()
	session, end, err := tpm2.PolicySession(chip, tpm2.TPMAlgSHA256, 16, parent.salted(), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return nil, fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	defer end()
	if err := t.satisfy(chip, session.Handle(), b); err != nil { // before the object is loaded: a TPM has room for three
		return nil, err
	}
	object, err := tpm2.Load{ParentHandle: parent.auth(), InPrivate: private, InPublic: public}.Execute(chip)
	if errors.Is(err, tpm2.TPMRCIntegrity) {
		return nil, ErrOtherTPM
	} else if err != nil {
		return nil, fmt.Errorf("TPM2_Load: %w", err)
	}
	defer flush(chip, object.ObjectHandle)
	rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(chip)
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return nil, fmt.Errorf("%w: PCR %d holds another value", ErrOtherBoot, t.PCRs)
	} else if err != nil {
		return nil, fmt.Errorf("TPM2_Unseal: %w", err)
	}
	return []byte(base64.StdEncoding.EncodeToString(rsp.OutData.Buffer)), nil
}

// object takes the blob apart: two structures, each behind its size.
func (t *Token) object() (private tpm2.TPM2BPrivate, public tpm2.TPM2BPublic, err error) {
	var parts [2][]byte
	rest := t.Blob
	for i := range parts {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return private, public, errors.New("token: its blob is cut off")
		}
		size := 2 + int(binary.BigEndian.Uint16(rest))
		parts[i], rest = rest[2:size], rest[size:]
	}
	return tpm2.TPM2BPrivate{Buffer: parts[0]}, tpm2.BytesAs2B[tpm2.TPMTPublic](parts[1]), nil
}

func flush(chip transport.TPM, handle tpm2.TPMHandle) {
	tpm2.FlushContext{FlushHandle: handle}.Execute(chip) // and the resource manager would, when the device is closed
}

// parent is the storage root key.
type parent struct {
	chip   transport.TPM
	key    *tpm2.CreatePrimaryResponse
	public *tpm2.TPMTPublic
}

func newParent(chip transport.TPM) (*parent, error) {
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(chip)
	if err != nil {
		return nil, fmt.Errorf("TPM2_CreatePrimary: %w", err)
	}
	public, err := key.OutPublic.Contents()
	if err != nil {
		flush(chip, key.ObjectHandle)
		return nil, err
	}
	return &parent{chip, key, public}, nil
}

func (p *parent) flush() { flush(p.chip, p.key.ObjectHandle) }

func (p *parent) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: p.key.ObjectHandle, Name: p.key.Name, Auth: tpm2.PasswordAuth(nil)}
}

func (p *parent) salted() tpm2.AuthOption { return tpm2.Salted(p.key.ObjectHandle, *p.public) }

// signer is the key in PEM, as a TPM knows it.
func signer(key []byte) (tpm2.TPMTPublic, error) {
	block, _ := pem.Decode(bytes.TrimRight(key, "\x00"))
	if block == nil {
		return tpm2.TPMTPublic{}, errors.New("the image's public key is not in PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("the image's public key: %w", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return tpm2.TPMTPublic{}, errors.New("the image's public key is not RSA")
	}
	exponent := uint32(public.E)
	if exponent == 65537 {
		exponent = 0 // which is what a TPM calls it
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{Decrypt: true, SignEncrypt: true, UserWithAuth: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(public.N.BitLen()), Exponent: exponent}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: public.N.Bytes()}),
	}, nil
}

func selection(pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)}}}
}

// values is the hash of what registers hold.
func values(chip transport.TPM, pcrs []uint) (tpm2.TPM2BDigest, error) {
	rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(pcrs)}.Execute(chip)
	if err != nil {
		return tpm2.TPM2BDigest{}, fmt.Errorf("TPM2_PCR_Read: %w", err)
	}
	if len(rsp.PCRValues.Digests) != len(pcrs) {
		return tpm2.TPM2BDigest{}, errors.New("TPM2_PCR_Read: the TPM has no bank of SHA-256")
	}
	h := sha256.New()
	for _, digest := range rsp.PCRValues.Digests {
		h.Write(digest.Buffer)
	}
	return tpm2.TPM2BDigest{Buffer: h.Sum(nil)}, nil
}

// policy is the digest of the policy, with the fixed registers as they are now.
func (t *Token) policy(chip transport.TPM) ([]byte, error) {
	now, err := values(chip, t.PCRs)
	if err != nil {
		return nil, err
	}
	c, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if len(t.PublicKey) > 0 {
		key, err := signer(t.PublicKey)
		if err != nil {
			return nil, err
		}
		name, err := tpm2.ObjectName(&key)
		if err != nil {
			return nil, err
		}
		if err := (tpm2.PolicyAuthorize{KeySign: *name}).Update(c); err != nil {
			return nil, err
		}
	}
	err = tpm2.PolicyPCR{PcrDigest: now, Pcrs: selection(t.PCRs)}.Update(c)
	return c.Hash().Digest, err
}

// satisfy does in a session what the policy asks for.
func (t *Token) satisfy(chip transport.TPM, session tpm2.TPMHandle, b Boot) error {
	if len(t.PublicKey) > 0 {
		if err := t.authorize(chip, session, b); err != nil {
			return err
		}
	}
	if _, err := (tpm2.PolicyPCR{PolicySession: session, Pcrs: selection(t.PCRs)}).Execute(chip); err != nil {
		return fmt.Errorf("TPM2_PolicyPCR: %w", err)
	}
	return nil
}

// authorize shows the TPM the signature of what the signed registers hold.
func (t *Token) authorize(chip transport.TPM, session tpm2.TPMHandle, b Boot) error {
	if _, err := (tpm2.PolicyPCR{PolicySession: session, Pcrs: selection(t.SignedPCRs)}).Execute(chip); err != nil {
		return fmt.Errorf("TPM2_PolicyPCR: %w", err)
	}
	approved, err := tpm2.PolicyGetDigest{PolicySession: session}.Execute(chip)
	if err != nil {
		return fmt.Errorf("TPM2_PolicyGetDigest: %w", err)
	}
	signature, err := b.signature(approved.PolicyDigest.Buffer)
	if err != nil {
		return err
	}
	public, err := signer(t.PublicKey)
	if err != nil {
		return err
	}
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(public), Hierarchy: tpm2.TPMRHOwner}.Execute(chip)
	if err != nil {
		return fmt.Errorf("TPM2_LoadExternal: %w", err)
	}
	defer flush(chip, key.ObjectHandle)
	digest := sha256.Sum256(approved.PolicyDigest.Buffer)
	checked, err := tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}, Digest: tpm2.TPM2BDigest{Buffer: digest[:]},
		Signature: tpm2.TPMTSignature{
			SigAlg:    tpm2.TPMAlgRSASSA,
			Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signature}}),
		},
	}.Execute(chip)
	if errors.Is(err, tpm2.TPMRCSignature) {
		return fmt.Errorf("%w: the image was signed with another key", ErrOtherBoot)
	} else if err != nil {
		return fmt.Errorf("TPM2_VerifySignature: %w", err)
	}
	_, err = tpm2.PolicyAuthorize{PolicySession: session, ApprovedPolicy: approved.PolicyDigest, KeySign: key.Name, CheckTicket: checked.Validation}.Execute(chip)
	if err != nil {
		return fmt.Errorf("TPM2_PolicyAuthorize: %w", err)
	}
	return nil
}

// signature finds that of a policy in the form of systemd-measure.
func (b Boot) signature(policy []byte) ([]byte, error) {
	var banks map[string][]struct {
		Policy    string `json:"pol"`
		Signature []byte `json:"sig"`
	}
	if len(b.Signatures) == 0 {
		return nil, fmt.Errorf("%w: the image has no signed policy", ErrOtherBoot)
	}
	if err := json.Unmarshal(bytes.TrimRight(b.Signatures, "\x00"), &banks); err != nil {
		return nil, fmt.Errorf("the image's signed policy: %w", err)
	}
	for _, s := range banks["sha256"] {
		if s.Policy == hex.EncodeToString(policy) {
			return s.Signature, nil
		}
	}
	return nil, fmt.Errorf("%w: what the image's signed policy says of PCR 11 is not what it holds", ErrOtherBoot)
}
