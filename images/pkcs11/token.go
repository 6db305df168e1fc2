//go:build pkcs11

package pkcs11

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"

	p11 "github.com/miekg/pkcs11"
)

// Of PKCS #11 3.0, which p11 does not have.
const (
	keyEdwards     = 0x00000040 // CKK_EC_EDWARDS
	mechanismEdDSA = 0x00001057 // CKM_EDDSA
)

// sha256Info is what PKCS #1 v1.5 signs in front of a SHA-256 (RFC 8017, 9.2, note 1): a token's own mechanism leaves that to its caller.
var sha256Info = []byte("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20")

// key is one in a token that was logged in to.
type key struct {
	uri     *URI
	module  *module
	session p11.SessionHandle
	object  p11.ObjectHandle
	public  crypto.PublicKey
	// each is the PIN if each signature takes it again (CKA_ALWAYS_AUTHENTICATE), as with the signing key of a PIV card.
	each *string
}

func open(u *URI) (Key, error) {
	file := cmp.Or(u.how["module-path"], os.Getenv(moduleVariable))
	if file == "" {
		return nil, fmt.Errorf("no module: want module-path=FILE behind the \"?\", or %s in the environment", moduleVariable)
	}
	m, err := load(file)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	k, err := m.open(u)
	if err != nil {
		return nil, errors.Join(err, m.release())
	}
	return k, nil
}

// open opens a key in a module that was loaded for it.
func (m *module) open(u *URI) (*key, error) {
	slot, token, err := m.token(u)
	if err != nil {
		return nil, err
	}
	k := &key{uri: u, module: m}
	if k.session, err = m.OpenSession(slot, p11.CKF_SERIAL_SESSION); err == nil {
		if err = k.find(token); err == nil {
			return k, nil
		}
		err = errors.Join(err, m.CloseSession(k.session))
	}
	return nil, fmt.Errorf("token %q: %w", token.Label, err)
}

// find finds the key, after the token was logged in to.
func (k *key) find(token p11.TokenInfo) error {
	var pin string
	if token.Flags&p11.CKF_LOGIN_REQUIRED != 0 {
		var err error
		if pin, err = k.uri.pin(); err != nil {
			return err
		}
		if err := k.module.login(k.session, token, pin); err != nil {
			return err
		}
	}
	wanted := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY)}
	if label, said := k.uri.key["object"]; said {
		wanted = append(wanted, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if id, said := k.uri.key["id"]; said {
		wanted = append(wanted, p11.NewAttribute(p11.CKA_ID, id))
	}
	objects, err := k.objects(wanted)
	switch {
	case err != nil:
		return err
	case len(objects) == 0:
		return errors.New("no such private key is there")
	case len(objects) > 1:
		return fmt.Errorf("this is %d private keys, say which by object or id", len(objects))
	}
	k.object = objects[0]
	if always, err := k.attribute(k.object, p11.CKA_ALWAYS_AUTHENTICATE); err == nil && len(always) == 1 && always[0] != 0 { // many tokens have no such attribute
		k.each = &pin
	}
	k.public, err = k.publicKey()
	return err
}

// publicKey is the public half of the key.
func (k *key) publicKey() (crypto.PublicKey, error) {
	kind, err := k.attribute(k.object, p11.CKA_KEY_TYPE)
	if err != nil {
		return nil, err
	}
	switch number(kind) {
	case p11.CKK_RSA:
		return k.publicRSA()
	case keyEdwards:
		return k.publicEd25519()
	case p11.CKK_EC:
		return nil, errors.New("the key is an EC key: firmware and TPMs want RSA, upgrades Ed25519")
	}
	return nil, fmt.Errorf("the key is neither RSA nor Ed25519 (CKA_KEY_TYPE %#x)", number(kind))
}

func (k *key) publicRSA() (crypto.PublicKey, error) {
	modulus, err := k.attribute(k.object, p11.CKA_MODULUS)
	if err != nil {
		return nil, fmt.Errorf("its modulus: %w", err)
	}
	exponent, err := k.attribute(k.object, p11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, fmt.Errorf("its public exponent: %w", err)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(new(big.Int).SetBytes(exponent).Int64())}, nil
}

// publicEd25519 takes the point from the object of the public key: that of a private one has none.
func (k *key) publicEd25519() (crypto.PublicKey, error) {
	id, err := k.attribute(k.object, p11.CKA_ID)
	if err != nil {
		return nil, err
	}
	objects, err := k.objects([]*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, keyEdwards), p11.NewAttribute(p11.CKA_ID, id),
	})
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("%d public keys have the id of the private one (%x): want one", len(objects), id)
	}
	point, err := k.attribute(objects[0], p11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	// An OCTET STRING with the point; of some tokens the point itself.
	var inside []byte
	if rest, err := asn1.Unmarshal(point, &inside); err == nil && len(rest) == 0 {
		point = inside
	}
	if len(point) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("the key is no Ed25519 key: its point has %d bytes", len(point))
	}
	return ed25519.PublicKey(point), nil
}

// objects are those with these attributes.
func (k *key) objects(with []*p11.Attribute) (all []p11.ObjectHandle, err error) {
	if err := k.module.FindObjectsInit(k.session, with); err != nil {
		return nil, err
	}
	for {
		some, _, err := k.module.FindObjects(k.session, 16)
		if err != nil || len(some) == 0 {
			return all, errors.Join(err, k.module.FindObjectsFinal(k.session))
		}
		all = append(all, some...)
	}
}

func (k *key) attribute(object p11.ObjectHandle, kind uint) ([]byte, error) {
	got, err := k.module.GetAttributeValue(k.session, object, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if err != nil {
		return nil, err
	}
	return got[0].Value, nil
}

// number is a CK_ULONG; 0 if it is none.
func number(value []byte) uint {
	if len(value) == 8 {
		return uint(binary.NativeEndian.Uint64(value))
	} else if len(value) == 4 {
		return uint(binary.NativeEndian.Uint32(value))
	}
	return 0
}

// Public is an *rsa.PublicKey or an ed25519.PublicKey.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign signs what digest is: a SHA-256, or for Ed25519 the message itself. It wants no random numbers.
func (k *key) Sign(_ io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	signature, err := k.sign(digest, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.uri, err)
	}
	return signature, nil
}

func (k *key) sign(digest []byte, options crypto.SignerOpts) ([]byte, error) {
	mechanism, data, hash := uint(mechanismEdDSA), digest, crypto.Hash(0)
	if _, is := k.public.(*rsa.PublicKey); is {
		mechanism, data, hash = p11.CKM_RSA_PKCS, slices.Concat(sha256Info, digest), crypto.SHA256
	}
	if _, pss := options.(*rsa.PSSOptions); pss || options.HashFunc() != hash || hash != 0 && len(digest) != hash.Size() {
		return nil, fmt.Errorf("asked for another signature than with PKCS #1 v1.5 over SHA-256, or Ed25519 (%v, %d bytes)", options.HashFunc(), len(digest))
	}
	if err := k.module.SignInit(k.session, []*p11.Mechanism{p11.NewMechanism(mechanism, nil)}, k.object); err != nil {
		return nil, err
	}
	if k.each != nil {
		if err := k.module.Login(k.session, p11.CKU_CONTEXT_SPECIFIC, *k.each); err != nil {
			return nil, err
		}
	}
	return k.module.Sign(k.session, data)
}

func (k *key) Close() error {
	return errors.Join(k.module.CloseSession(k.session), k.module.release())
}
