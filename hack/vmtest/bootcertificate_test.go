package vmtest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// untrusted: firmware that boots by HTTPS takes nothing from a server without a reason to believe it.
func untrusted(t *testing.T, program string) {
	for _, tc := range []struct {
		name  string
		names string // the address in the certificate that the firmware trusts
		has   bool   // the server has it; else it has its own
	}{
		{"a certificate with another key", "192.0.2.1", false},
		{"a certificate for another address", "192.0.2.2", true},
	} {
		t.Run("UEFI by HTTPS refuses "+tc.name, func(t *testing.T) {
			tap(t)
			certificate, key := certify(t, tc.names)
			arguments := []string{"--dhcp", "192.0.2.100-192.0.2.199", "--http-boot", "https"}
			if tc.has {
				arguments = append(arguments, "--certificate", certificate, "--key", key)
			}
			_, said := serveBoots(t, program, vmtest.Identity(t), arguments...)
			n := vmtest.Start(t, vmtest.Options{
				NoImage: true, Boot: node.UEFI, NoUserData: true, Extra: slices.Concat(bootNetwork, noPXE, trusts(t, certificate), bootCard("boot", noROM)),
			})
			if what := n.Expect(t, 0, `Error: (Could not retrieve NBP file size)|File Size: `); what[1] == "" {
				t.Fatal("it takes the image")
			}
			// edk2 says to the server not even that it refuses: it hangs up, when it has seen the certificate.
			hangsUp := regexp.MustCompile(`TLS handshake error from 192\.0\.2\.1\d\d:\d+: .*connection reset by peer`)
			if _, err := said.Wait(n.Patience(t, moment), 0, hangsUp); err != nil {
				t.Error(err)
			}
			if m := machines(t); len(m) != 1 || m[0].Stage != "dhcp" {
				t.Errorf("the list has %+v", m)
			}
		})
	}
}

// trusts has edk2, for amd64 or arm64, trust the certificate in a file (edk2's OvmfPkg/README, "HTTPS Boot").
func trusts(t *testing.T, file string) []string {
	t.Helper()
	certificate, err := secureboot.ReadCertificate(file)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "cacerts")
	writeText(t, list, string(secureboot.SignatureList(uuid.Nil, certificate)))
	return []string{"-fw_cfg", "name=etc/edk2/https/cacerts,file=" + list}
}

// certify makes a certificate for an address that is like cosi-boot's own.
func certify(t *testing.T, address string) (certificate, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cosi-boot 192.0.2.1"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	writeText(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeText(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return certificate, key
}
