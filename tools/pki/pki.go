// Package pki makes the keys and certificates of a node and its clients: a CA, serving pairs, client pairs.
//
// cosictl, the QEMU runner and tests use it. The CA's key stays with whoever made it: neither a node nor its user data ever holds it.
// Keys are Ed25519. A node is verified by its name, one DNS SAN, whatever address it is reached at; a client's role is its organisation.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Role is what a client may do on a node: one of Roles, or what the node's Roles documents allow an organisation.
type Role string

// Roles, as organisations of client certificates.
const (
	RoleAdmin    Role = "admin"
	RoleOperator Role = "operator"
	RoleReader   Role = "reader"
)

// Roles are those that every node knows.
var Roles = []Role{RoleAdmin, RoleOperator, RoleReader}

// How long what is made stays valid.
const (
	LifeCA     = 10 * 365 * 24 * time.Hour
	LifeNode   = 2 * 365 * 24 * time.Hour
	LifeClient = 365 * 24 * time.Hour
)

// Backdate is how long ago a new certificate became valid: a node without a clock of its own starts at the build time of its image,
// which may lie well before the certificates were made.
const Backdate = 2 * 365 * 24 * time.Hour

// Pair is a certificate and its key, both also as PEM (the key in PKCS #8).
type Pair struct {
	Certificate *x509.Certificate
	CertPEM     []byte
	KeyPEM      []byte

	key crypto.Signer
}

// Maker makes pairs. Now and Rand are passed in so that tests repeat.
type Maker struct {
	Now  time.Time
	Rand io.Reader
}

// CA returns a new authority.
func (m Maker) CA(name string) (*Pair, error) {
	key, err := m.newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name},
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	return m.issue(template, LifeCA, nil, key)
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// Node returns the serving pair of the node called name.
func (m Maker) Node(ca *Pair, name string) (*Pair, error) {
	// An address would be verified as an address, and a node is not one.
	if _, err := netip.ParseAddr(name); err == nil || !namePattern.MatchString(name) || len(name) > 253 {
		return nil, fmt.Errorf("%q is not a node name (lower-case letters, digits, hyphens, dots)", name)
	}
	key, err := m.newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	return m.issue(template, LifeNode, ca, key)
}

// clientPattern holds a client's name to what a file and one line of a table can have; 64 is all that a common name takes (RFC 5280, A.1).
var clientPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Client returns the pair of a client with a role.
func (m Maker) Client(ca *Pair, name string, role Role) (*Pair, error) {
	if !clientPattern.MatchString(name) {
		return nil, fmt.Errorf("%q is not a client's name (letters, digits, dots, hyphens, underscores, @; at most 64)", name)
	}
	if _, err := ParseRole(string(role)); err != nil {
		return nil, err
	}
	key, err := m.newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: name, Organization: []string{string(role)}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	return m.issue(template, LifeClient, ca, key)
}

// Renew returns old with a new serial number and validity, and the same key, names and usages: what pins the key keeps working. It does
// not matter whether old has expired. A CA is renewed by itself: ca is nil.
func (m Maker) Renew(ca, old *Pair) (*Pair, error) {
	template := &x509.Certificate{
		Subject: old.Certificate.Subject, DNSNames: old.Certificate.DNSNames,
		KeyUsage: old.Certificate.KeyUsage, ExtKeyUsage: old.Certificate.ExtKeyUsage,
		IsCA: old.Certificate.IsCA, BasicConstraintsValid: true, MaxPathLenZero: old.Certificate.MaxPathLenZero,
	}
	life := LifeClient
	switch {
	case old.Certificate.IsCA:
		life, ca = LifeCA, nil
	case len(old.Certificate.DNSNames) > 0:
		life = LifeNode
	}
	return m.issue(template, life, ca, old.key)
}

func (m Maker) newKey() (crypto.Signer, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(m.Rand, seed); err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (m Maker) issue(template *x509.Certificate, life time.Duration, ca *Pair, key crypto.Signer) (*Pair, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(m.Rand, serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always of one length
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.NotBefore = m.Now.UTC().Add(-Backdate).Truncate(time.Second)
	template.NotAfter = m.Now.UTC().Add(life).Truncate(time.Second)
	parent, signer := template, key
	if ca != nil {
		if !ca.Certificate.IsCA {
			return nil, fmt.Errorf("%s is not a CA", ca.Certificate.Subject)
		}
		parent, signer = ca.Certificate, ca.key
	}
	der, err := x509.CreateCertificate(m.Rand, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return Load(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// Load returns the pair of a PEM certificate and its PEM key.
func Load(certPEM, keyPEM []byte) (*Pair, error) {
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	signer, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("key cannot sign")
	}
	return &Pair{Certificate: certificate.Leaf, CertPEM: certPEM, KeyPEM: keyPEM, key: signer}, nil
}

// Expired reports whether p is not valid any more at t.
func (p *Pair) Expired(t time.Time) bool { return t.After(p.Certificate.NotAfter) }

// SameKey reports whether text is the PEM of one certificate, with p's key.
func (p *Pair) SameKey(text []byte) bool {
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err == nil && KeyFingerprint(c) == KeyFingerprint(p.Certificate)
}

// Fingerprint is the SHA-256 of a certificate in hex, as nodes print it.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// KeyFingerprint is the SHA-256 of a certificate's public key in hex: the same for the certificate that renews it.
func KeyFingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

var notHex = regexp.MustCompile(`[:\s]`)

// ParseFingerprint reads a SHA-256 in hex, with colons or not, in any case.
func ParseFingerprint(text string) (string, error) {
	sum, err := hex.DecodeString(notHex.ReplaceAllString(text, ""))
	if err != nil || len(sum) != sha256.Size {
		return "", fmt.Errorf("%q is not a SHA-256 fingerprint (64 hex digits)", text)
	}
	return hex.EncodeToString(sum), nil
}

// ParseRole reads a role: one of Roles, or an organisation that a Roles document of the node may name, as long as that allows.
func ParseRole(text string) (Role, error) {
	if text == "" || len(text) > 253 || strings.TrimSpace(text) != text {
		return "", fmt.Errorf("%q is not a role (%s, %s, %s, or an organisation that a Role of the node names)", text, RoleAdmin, RoleOperator, RoleReader)
	}
	return Role(text), nil
}

// BuiltIn reports whether every node knows the role.
func (r Role) BuiltIn() bool { return slices.Contains(Roles, r) }
