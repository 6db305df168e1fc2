package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cosi-os/cosi/tools/pki"
)

// certificate returns the one for HTTPS, and its file: what the flags name, or one that was made before, or a new one.
func (o *options) certificate(state string, address netip.Addr, now time.Time, logf func(string, ...any)) (tls.Certificate, string, error) {
	if o.cert != "" {
		c, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return c, "", fmt.Errorf("--certificate, --key: %w", err)
		}
		return c, o.cert, nil
	}
	cert, key := filepath.Join(state, "https.crt"), filepath.Join(state, "https.key")
	c, err := tls.LoadX509KeyPair(cert, key)
	if err == nil && now.Before(c.Leaf.NotAfter) && slices.ContainsFunc(c.Leaf.IPAddresses, net.IP(address.AsSlice()).Equal) {
		return c, cert, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, "", fmt.Errorf("%s: %w", cert, err)
	}
	logf("a certificate for %s is made: %s, which an image's definition may name as user_data: {url_ca: …}", address, cert)
	if err := makeCertificate(cert, key, address, now); err != nil {
		return c, "", err
	}
	c, err = tls.LoadX509KeyPair(cert, key)
	return c, cert, err
}

// secure is how HTTPS is served. Firmware may know neither elliptic curves nor TLS 1.3: edk2's OVMF has them from 2025.05 on. Before that it has the key
// exchanged by Diffie-Hellman without curves, which Go does not do, or by RSA, which Go does only when told to. Nodes ask for neither.
func (o *options) secure(c tls.Certificate) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c}}
	if o.firmware == "https" {
		for _, suite := range tls.CipherSuites() {
			config.CipherSuites = append(config.CipherSuites, suite.ID)
		}
		config.CipherSuites = append(config.CipherSuites, tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_GCM_SHA256)
	}
	return config
}

// makeCertificate writes a certificate that vouches for itself, and its key. It is RSA's, which all firmware knows.
func makeCertificate(cert, key string, address netip.Addr, now time.Time) error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "cosi-boot " + address.String()}, IPAddresses: []net.IP{address.AsSlice()},
		NotBefore: now.Add(-pki.Backdate), NotAfter: now.Add(pki.LifeCA), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name  string
		block pem.Block
		mode  os.FileMode
	}{{key, pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}, 0o600}, {cert, pem.Block{Type: "CERTIFICATE", Bytes: der}, 0o644}} {
		if err := os.WriteFile(file.name, pem.EncodeToMemory(&file.block), file.mode); err != nil {
			return err
		}
	}
	return nil
}
