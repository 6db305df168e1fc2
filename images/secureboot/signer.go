// Package secureboot makes what a machine's firmware wants to see before it runs a program of ours: keys, signatures of EFI programs, and the
// variables by which a firmware gets to know the keys.
//
// The image builder signs boot images with it, cosi-image makes keys, and package inspect reads signatures. Whatever is signed is signed the same
// way: RSA with PKCS #1 v1.5 and SHA-256, which is all that firmware has to know (UEFI Specification 2.10, 32.2.4), and which gives the same bytes for
// the same key, bytes and time.
package secureboot

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Signer signs in the name of a certificate.
type Signer struct {
	// Key may be anywhere: in a file, or in a device that never gives it away.
	Key         crypto.Signer
	Certificate *x509.Certificate
	// Time is when it signs, as the signature says. Nobody asks whether the certificate was valid then: firmware has no trustworthy clock.
	Time time.Time
}

// errNotRSA says why a key is none for firmware.
var errNotRSA = errors.New("is no RSA key: firmware knows no other kind")

// check fails if the key is not the certificate's, or no firmware knows its kind.
func (s Signer) check() error {
	public, ok := s.Key.Public().(*rsa.PublicKey)
	if !ok {
		return errNotRSA
	}
	if !public.Equal(s.Certificate.PublicKey) {
		return fmt.Errorf("the key is not that of the certificate of %s", s.Certificate.Subject)
	}
	return nil
}

// sign signs the SHA-256 of data.
func (s Signer) sign(data []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return Sign(s.Key, data)
}

// Sign signs the SHA-256 of data by RSA with PKCS #1 v1.5.
func Sign(key crypto.Signer, data []byte) ([]byte, error) {
	digest := sha256.Sum256(data)
	return key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

// ReadKey reads a private RSA key from a PEM file: PKCS #8 or PKCS #1, not encrypted.
func ReadKey(file string) (crypto.Signer, error) {
	block, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	var key any
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		err = errors.New("is encrypted: a build asks for no passphrase")
	default:
		err = fmt.Errorf("holds a %s: want a PRIVATE KEY", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: %w", file, errNotRSA)
	}
	return private, nil
}

// ReadCertificate reads the certificate of an RSA key from a PEM file.
func ReadCertificate(file string) (*x509.Certificate, error) {
	block, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	if block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: holds a %s: want a CERTIFICATE", file, block.Type)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err == nil && certificate.PublicKeyAlgorithm != x509.RSA {
		err = errNotRSA
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certificate, nil
}

// ReadPublicKey reads a public RSA key from a PEM file.
func ReadPublicKey(file string) (*rsa.PublicKey, error) {
	block, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%s: holds a %s: want a PUBLIC KEY", file, block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: %w", file, errNotRSA)
	}
	return public, nil
}

func readPEM(file string) (*pem.Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s: is no PEM", file)
	}
	return block, nil
}
