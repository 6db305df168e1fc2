package network

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// ServingKeys is the kind that keeps the pair of a node that was given none.
var ServingKeys = state.Kind{Namespace: "config", Type: "ServingKeys.machine.cosi.dev"}

// own returns the ServingKey, and makes it first if there is none. Clients pin it: one that is not kept is not served with.
func (g *Gate) own(ctx context.Context) (*resourcepb.Resource, error) {
	p := state.Pointer{Kind: ServingKeys, ID: Node}
	r, err := g.State.Get(ctx, p)
	if !errors.Is(err, state.ErrNotFound) {
		return r, err
	}
	pair, err := makePair(g.Name())
	if err != nil {
		return nil, fmt.Errorf("serving key: %w", err)
	}
	if err := g.Output.Put(ctx, p, pair); err != nil {
		return nil, fmt.Errorf("serving key: %w", err)
	}
	return g.State.Get(ctx, p)
}

// CheckServingKey is the schema.Check of ServingKeys.
func CheckServingKey(content []byte) error {
	_, err := readPair(content)
	return err
}

func readPair(content []byte) (tls.Certificate, error) {
	k := &machinepb.ServingKey{}
	if err := proto.Unmarshal(content, k); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair([]byte(k.GetCertificate()), []byte(k.GetKey()))
	if err != nil {
		return tls.Certificate{}, wrong("key", err)
	}
	return pair, nil
}

// makePair makes a key and a certificate. Clients know it by its fingerprint, so its dates say nothing: it is valid from before any clock to
// RFC 5280's "no end".
func makePair(name string) (*machinepb.ServingKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &machinepb.ServingKey{
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		Key:         string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}, nil
}
