package network

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// trust is a Certificates resource, parsed. It does not change.
type trust struct {
	version    string // of the resource
	read, own  stamp  // of the resource, and of the ServingKey if it is served with
	cas        []*x509.Certificate
	pool       *x509.CertPool
	serving    tls.Certificate // with Leaf
	selfSigned bool
	revoked    map[string]bool
}

// stamp tells a resource from what it was before: one that was destroyed and made again begins at version 1 anew.
type stamp struct {
	version string
	created time.Time
}

func stampOf(m *resourcepb.Metadata) stamp { return stamp{m.GetVersion(), m.GetCreated().AsTime()} }

// bringsNoPair reports whether the node serves with a pair of its own.
func bringsNoPair(c *machinepb.Certificates) bool {
	return c.GetServingCertificate() == "" && c.GetServingKey() == ""
}

// parseTrust returns what a node serves with. own is the ServingKey, for a resource that brings no pair; those who only want to know whether
// the resource can be used leave it out. Errors about the resource are of type *state.FieldError.
func parseTrust(m *resourcepb.Metadata, c *machinepb.Certificates, own *resourcepb.Resource) (*trust, error) {
	t := &trust{
		version: m.GetVersion(), read: stampOf(m), own: stampOf(own.GetMetadata()), pool: x509.NewCertPool(), revoked: map[string]bool{},
	}
	for i, text := range c.GetClientCas() {
		cas, err := parseCertificates(text)
		if err != nil {
			return nil, wrong(fmt.Sprintf("client_cas[%d]", i), err)
		}
		for _, ca := range cas {
			if !ca.IsCA {
				return nil, wrong(fmt.Sprintf("client_cas[%d]", i), fmt.Errorf("%q is no CA certificate", ca.Subject))
			}
			t.cas = append(t.cas, ca)
			t.pool.AddCert(ca)
		}
	}
	if len(t.cas) == 0 {
		return nil, wrong("client_cas", errors.New("there is none"))
	}
	for _, fingerprint := range c.GetRevoked() {
		t.revoked[strings.ToLower(fingerprint)] = true
	}
	var err error
	if t.selfSigned = bringsNoPair(c); !t.selfSigned {
		t.serving, err = parseServing(c.GetServingCertificate(), c.GetServingKey())
	} else if own != nil {
		t.serving, err = readPair(own.GetSpec().GetProtoSpec())
	}
	return t, err
}

func wrong(field string, err error) error {
	return &state.FieldError{Path: "spec." + field, Message: err.Error()}
}

func parseCertificates(text string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block %q: only certificates belong here", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, certificate)
	}
	if len(all) == 0 {
		return nil, errors.New("is no PEM certificate")
	}
	return all, nil
}

// parseServing never quotes the key in an error.
func parseServing(certificate, key string) (tls.Certificate, error) {
	if certificate == "" || key == "" {
		return tls.Certificate{}, wrong("serving_key", errors.New("serving_certificate or serving_key: one of them is missing"))
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		return tls.Certificate{}, wrong("serving_key", err)
	}
	if len(pair.Leaf.DNSNames) == 0 {
		return tls.Certificate{}, wrong("serving_certificate", errors.New("it has no DNS name, by which clients would know the node"))
	}
	return pair, nil
}

// errRefused is what every refusal of a client wraps. Each is a sentence for the node's console, not for the client.
var errRefused = errors.New("client refused")

// errClock is a refusal that a wrong clock may be the cause of: the certificate is one of ours.
var errClock = fmt.Errorf("%w because of the time", errRefused)

// of reports whether t was parsed from the resource and the ServingKey as they are now.
func (t *trust) of(m, own *resourcepb.Metadata) bool {
	return t != nil && t.read == stampOf(m) && t.own == stampOf(own)
}

// verify checks a client's chain, leaf first, at the time now, and returns from when until when this holds.
func (t *trust) verify(chain []*x509.Certificate, now time.Time) (from, until time.Time, err error) {
	if len(chain) == 0 {
		return from, until, fmt.Errorf("%w: it has no certificate", errRefused)
	}
	leaf := chain[0]
	verified, err := t.chain(chain, now)
	if err != nil {
		if t.validOnce(chain) {
			return from, until, fmt.Errorf("%w: certificate of %s is valid from %s to %s, this node's clock says %s", errClock, leaf.Subject,
				leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		return from, until, fmt.Errorf("%w: certificate of %s: %w", errRefused, leaf.Subject, err)
	}
	from, until = leaf.NotBefore, leaf.NotAfter
	for _, certificate := range verified {
		if t.revoked[fingerprint(certificate)] {
			return from, until, fmt.Errorf("%w: certificate of %s is revoked", errRefused, certificate.Subject)
		}
		if certificate.NotBefore.After(from) {
			from = certificate.NotBefore
		}
		if certificate.NotAfter.Before(until) {
			until = certificate.NotAfter
		}
	}
	return from, until, nil
}

// chain returns the chain up to a trust anchor.
func (t *trust) chain(chain []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	options := x509.VerifyOptions{Roots: t.pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, certificate := range chain[1:] {
		options.Intermediates.AddCert(certificate)
	}
	verified, err := chain[0].Verify(options)
	if err != nil {
		return nil, err
	}
	return verified[0], nil
}

// validOnce reports whether there is a time at which the chain is accepted: then the time is what is wrong with it.
func (t *trust) validOnce(chain []*x509.Certificate) bool {
	for _, certificate := range slices.Concat(chain, t.cas) {
		for _, at := range []time.Time{certificate.NotBefore, certificate.NotAfter} {
			if _, err := t.chain(chain, at); err == nil {
				return true
			}
		}
	}
	return false
}

// clock says in words what is wrong with the time now, or nothing.
func (t *trust) clock(now time.Time) string {
	leaf, say := t.serving.Leaf, ""
	switch {
	case now.Before(leaf.NotBefore):
		say = fmt.Sprintf("before the serving certificate begins to be valid, %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		say = fmt.Sprintf("after the serving certificate's end, %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	default:
		return ""
	}
	// To the day: the console shows each change of the sentence.
	return fmt.Sprintf("the clock says %s, that is %s: clients will refuse this node", now.UTC().Format(time.DateOnly), say)
}

// fingerprint is the SHA-256 of the certificate in hex.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
