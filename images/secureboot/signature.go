package secureboot

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/smallstep/pkcs7"

	"github.com/cosi-os/cosi/images/content"
)

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// Signature is one of an EFI program.
type Signature struct {
	*pkcs7.PKCS7
	// Certificate is the signer's; nil if the signature does not hold it.
	Certificate *x509.Certificate
	// Wrong says why the signature is not good by the certificate in it; nil if it is. Whether that is to be trusted is another question.
	Wrong error
}

// Bytes is the signature proper, which the key has made.
func (s *Signature) Bytes() []byte { return s.Signers[0].EncryptedDigest }

// Signatures are those of an EFI program; none if it is not signed.
func Signatures(c content.Content) ([]*Signature, error) {
	p, err := openProgram(c)
	if err != nil || p.tableSize == 0 {
		return nil, err
	}
	if p.tableSize > mostCertificates {
		return nil, fmt.Errorf("its table of certificates has %d bytes", p.tableSize)
	}
	table := make([]byte, p.tableSize)
	if _, err := c.ReadAt(table, p.table); err != nil {
		return nil, err
	}
	digest, err := p.digest()
	if err != nil {
		return nil, err
	}
	var all []*Signature
	for len(table) >= entryHead {
		length := int64(binary.LittleEndian.Uint32(table))
		if length <= entryHead || length > int64(len(table)) {
			return nil, fmt.Errorf("its certificate has %d bytes", length)
		}
		s, err := parseSignature(table[entryHead:length], digest)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
		table = table[min(aligned(length), int64(len(table))):]
	}
	return all, nil
}

func parseSignature(der, digest []byte) (*Signature, error) {
	m, err := pkcs7.Parse(der)
	if err != nil {
		return nil, err
	}
	if len(m.Signers) != 1 {
		return nil, fmt.Errorf("%d sign: want one", len(m.Signers))
	}
	s := &Signature{PKCS7: m, Certificate: m.GetOnlySigner()}
	s.Wrong = s.covers(digest)
	return s, nil
}

// covers fails if the signature is not over a program with the digest, or not by the certificate in it.
func (s *Signature) covers(digest []byte) error {
	var content struct {
		Data   asn1.RawValue
		Digest digestInfo
	}
	// The library gives what is in the SEQUENCE.
	whole, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: s.Content})
	if err == nil {
		_, err = asn1.Unmarshal(whole, &content)
	}
	switch {
	case err != nil:
		return err
	case !content.Digest.Algorithm.Algorithm.Equal(oidSHA256):
		return fmt.Errorf("the hash is no SHA-256")
	case !bytes.Equal(content.Digest.Digest, digest):
		return errors.New("is that of other bytes")
	case s.Certificate == nil:
		return errors.New("the certificate is not in it")
	}
	var outside *pkcs7.SigningTimeNotValidError
	if err := s.Verify(); err != nil && !errors.As(err, &outside) {
		return err
	}
	return nil
}

// Key is the public key that a signature is good by; nil if none is.
func (s *Signature) Key() *rsa.PublicKey {
	if s.Wrong != nil {
		return nil
	}
	key, _ := s.Certificate.PublicKey.(*rsa.PublicKey)
	return key
}
