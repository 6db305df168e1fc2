package secureboot

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/google/uuid"

	"github.com/cosi-os/cosi/images/keyfile"
)

const (
	// bits of a key: more than these not every firmware reads.
	bits = 2048
	// life of a certificate. Firmware does not look at it, other programs may.
	life = 30 * 365 * 24 * time.Hour
	// backdate is how long ago a new certificate became valid: what it signs may bear the time of an older commit.
	backdate = 10 * 365 * 24 * time.Hour
)

// PolicyKey is the stem of the files with the key that signs policies of a TPM.
const PolicyKey = "pcr"

// WriteKeys makes keys for Secure Boot in the directory dir, which it makes:
//
//	PK.key, KEK.key, db.key    private; db.key signs images
//	PK.crt, KEK.crt, db.crt    their certificates
//	PK.auth, KEK.auth, db.auth what makes a firmware in setup mode trust them, and nobody else
//	pcr.key, pcr.pub           a key that signs which boot images may have what a TPM keeps
//
// It replaces no file: it fails if one is there. It returns the names of the files.
func WriteKeys(dir, name string, now time.Time) ([]string, error) {
	files, err := makeKeys(name, now)
	if err != nil {
		return nil, err
	}
	return keyfile.Write(dir, files)
}

func makeKeys(name string, now time.Time) (files []keyfile.File, err error) {
	signers := map[Variable]Signer{}
	for _, v := range Variables {
		key, private, err := newKey()
		if err != nil {
			return nil, err
		}
		certificate, err := selfSigned(key, fmt.Sprintf("%s %s", name, v), now)
		if err != nil {
			return nil, err
		}
		signers[v] = Signer{Key: key, Certificate: certificate, Time: now}
		files = append(files, keyfile.File{Name: string(v) + ".key", Mode: keyfile.Private, Data: private},
			keyfile.File{Name: string(v) + ".crt", Mode: keyfile.Public, Data: keyfile.PEM("CERTIFICATE", certificate.Raw)})
	}
	id := sha256.Sum256(signers[PK].Certificate.Raw)
	owner := uuid.NewHash(sha256.New(), uuid.Nil, id[:], 8)
	for _, v := range Variables {
		data, err := signers[v.Signs()].Enrolment(v, owner, signers[v].Certificate)
		if err != nil {
			return nil, err
		}
		files = append(files, keyfile.File{Name: string(v) + ".auth", Mode: keyfile.Public, Data: data})
	}
	policy, private, err := newKey()
	if err != nil {
		return nil, err
	}
	public, err := PublicPEM(policy.Public())
	return append(files, keyfile.File{Name: PolicyKey + ".key", Mode: keyfile.Private, Data: private}, keyfile.File{Name: PolicyKey + ".pub", Mode: keyfile.Public, Data: public}), err
}

// PublicPEM is a public key as a PEM file.
func PublicPEM(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return keyfile.PEM("PUBLIC KEY", der), err
}

func newKey() (key crypto.Signer, private []byte, err error) {
	made, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	return made, keyfile.PEM("PRIVATE KEY", der), err
}

func selfSigned(key crypto.Signer, name string, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		SignatureAlgorithm: x509.SHA256WithRSA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
