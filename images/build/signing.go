package build

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/pcr"
	"github.com/cosi-os/cosi/images/pkcs11"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/images/uki"
)

// keys are those that a definition names. What they sign is noted.
type keys struct {
	boot    *secureboot.Signer // nil: nothing is signed for a firmware
	policy  crypto.Signer      // nil: nor for a TPM
	public  string             // that of policy, in PEM
	upgrade crypto.Signer      // nil: nor are upgrades
	tokens  []pkcs11.Key       // those of them that are in tokens
	made    *[][]byte
}

// close closes the keys that are in tokens. Everything is signed: what a token says to that is nobody's business.
func (k keys) close() {
	for _, key := range k.tokens {
		_ = key.Close()
	}
}

// openKeys opens the keys of a definition. With o.Signatures it does without: what they would sign is among these signatures, or is not signed.
func openKeys(o Options, d *definition.Definition, in *Inputs) (k keys, err error) {
	k.made = &[][]byte{}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	var before [][]byte
	if o.Signatures != "" {
		if before, err = signaturesOf(o.Signatures); err != nil {
			return k, err
		}
	}
	open := func(field, name string, token *pkcs11.URI, public publicKey, read func(file string) (crypto.Signer, error)) (key crypto.Signer, err error) {
		switch {
		case o.Signatures != "":
			key = replayed{public, before}
		case token != nil:
			var inToken pkcs11.Key
			if inToken, err = pkcs11.Open(token); err == nil {
				key, k.tokens = inToken, append(k.tokens, inToken)
			}
		default:
			key, err = read(name)
		}
		if err == nil && !public.Equal(key.Public()) {
			err = errors.New(name + " is not the key that it is said to be: its public half is another")
		}
		if err != nil {
			at := d.Origin(field, "")
			return nil, definition.Problems{{File: at.File, Line: at.Line, Field: field, Message: err.Error()}}
		}
		return noted{key, k.made}, nil
	}
	if s := d.SecureBoot; s.Key != "" {
		public, _ := s.Signer.PublicKey.(*rsa.PublicKey) // ReadCertificate takes no other
		key, err := open("secure_boot.key", s.Key, s.Token, public, secureboot.ReadKey)
		if err != nil {
			return k, err
		}
		k.boot = &secureboot.Signer{Key: key, Certificate: s.Signer, Time: in.Epoch}
	}
	if p := d.PCRPolicy; p.Key != "" {
		if k.policy, err = open("pcr_policy.key", p.Key, p.Token, p.Public, secureboot.ReadKey); err != nil {
			return k, err
		}
		public, err := secureboot.PublicPEM(p.Public)
		if err != nil {
			return k, err
		}
		k.public = string(public)
	}
	if u := d.Upgrade; u.Key != "" {
		if k.upgrade, err = open("upgrade.key", u.Key, u.Token, u.Public, readUpgradeKey); err != nil {
			return k, err
		}
	}
	return k, nil
}

// publicKey is one of any kind.
type publicKey interface {
	Equal(crypto.PublicKey) bool
}

// readUpgradeKey reads the private key of upgrades from a PEM file.
func readUpgradeKey(file string) (crypto.Signer, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := upgrade.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// noted is a key that keeps what it has signed, for the manifest. Whoever has it signs one thing after the other.
type noted struct {
	crypto.Signer
	made *[][]byte
}

func (n noted) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	signature, err := n.Signer.Sign(random, digest, options)
	if err == nil {
		*n.made = append(*n.made, signature)
	}
	return signature, err
}

// replayed is a key that has signed before, and can no more: it gives the signature again that is over the same.
type replayed struct {
	public publicKey
	before [][]byte
}

func (r replayed) Public() crypto.PublicKey { return r.public }

// Sign returns zeros, which are a signature of nothing, for what was not signed before.
func (r replayed) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	for _, signature := range r.before {
		if signs(r.public, digest, signature) {
			return signature, nil
		}
	}
	if key, ok := r.public.(*rsa.PublicKey); ok {
		return make([]byte, key.Size()), nil
	}
	return make([]byte, ed25519.SignatureSize), nil
}

// signs reports whether a signature is that of a key over digest, which is for Ed25519 the message itself.
func signs(key publicKey, digest, signature []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	}
	return false
}

// signaturesOf are those in an image, or those that a manifest beside outputs names.
func signaturesOf(file string) ([][]byte, error) {
	if filepath.Ext(file) == ".json" {
		m, err := manifest.Read(file)
		if err != nil {
			return nil, err
		}
		return m.Signatures, nil
	}
	i, err := inspect.Open(file)
	if err != nil {
		return nil, err
	}
	defer i.Close()
	return i.SignatureBytes()
}

// unify puts a unified kernel image together, with the signature of its policy. It is not signed for a firmware yet.
func (k keys) unify(stub []byte, spec uki.Spec) (image *uki.Image, err error) {
	spec.PolicyKey = k.public
	image, err = uki.New(stub, spec)
	if err != nil || k.policy == nil {
		return image, err
	}
	value, err := pcr.Predict(image)
	if err != nil {
		return nil, err
	}
	signature, err := pcr.Sign(value, k.policy)
	if err != nil {
		return nil, fmt.Errorf("pcr_policy: %w", err)
	}
	spec.PolicySignature = string(signature)
	return uki.New(stub, spec)
}

// sign signs an EFI program, if the definition wants that.
func (k keys) sign(program content.Content) (content.Content, error) {
	if k.boot == nil {
		return program, nil
	}
	signed, err := k.boot.SignProgram(program)
	if err != nil {
		return nil, fmt.Errorf("secure_boot: %w", err)
	}
	return signed, nil
}

// enrolDirectory is where systemd-boot looks for keys that it enrols by itself: loader.conf(5), secure-boot-enroll.
const enrolDirectory = "loader/keys/auto/"

// enrolment is what systemd-boot's configuration says, and the files with the keys that it teaches a firmware: none unless the definition wants that.
func enrolment(s definition.SecureBoot) (config string, keys []fat.File) {
	if !s.Enrols() {
		return bootentry.Config, nil
	}
	config = bootentry.Config
	if s.Enroll == "manual" {
		config = strings.Replace(config, "timeout 0\n", "timeout 5\n", 1) // whoever enrols picks an entry of the menu
	}
	for _, v := range secureboot.Variables {
		name := string(v) + ".auth"
		keys = append(keys, fat.File{Path: enrolDirectory + name, Content: content.String(string(s.Files[name]))})
	}
	return config + "secure-boot-enroll " + s.Enroll + "\n", keys
}

// inBoth counts the signatures that are in both.
func inBoth(a, b [][]byte) (n int) {
	for _, signature := range a {
		if slices.ContainsFunc(b, func(other []byte) bool { return string(other) == string(signature) }) {
			n++
		}
	}
	return n
}
