// Package client talks to the State API of a node for host programs: cosictl, the QEMU runner, VM tests.
//
// Dial makes the connection; a Client adds to the generated State client what every such program needs: kinds by any of their
// names, apply, waiting until a resource has converged, watching, and errors in plain sentences.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/pki"
)

// Port is where nodes serve the API.
const Port = "50000"

// Client is a connection to one node. Its methods may be used by several goroutines.
type Client struct {
	// State is the generated client, for what the methods do not cover. Its errors are gRPC's: see Explain.
	State resourcepb.StateClient

	conn  *grpc.ClientConn
	kinds *kindCache
}

// Dial returns a client of the node of c. It does not wait for a connection: the first call does. Over the network the node proves its
// name (or the pinned fingerprint) and the client its certificate; a unix socket is trusted as its file's permissions say.
func Dial(c Context) (*Client, error) {
	target, credentials, err := c.transport()
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(credentials), grpc.WithNoProxy(),
		// A node that reboots answers again soon: do not let the back-off grow to gRPC's two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, err
	}
	state := resourcepb.NewStateClient(conn)
	return &Client{State: state, conn: conn, kinds: newKindCache(state)}, nil
}

// Close ends the connection and all calls on it.
func (c *Client) Close() error { return c.conn.Close() }

// DryRun returns a context whose writes do everything but commit.
func DryRun(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "cosi-dry-run", "true")
}

// Kind finds a kind by any of its names.
func (c *Client) Kind(ctx context.Context, name string) (*kinds.Kind, error) {
	return c.kinds.lookup(ctx, name)
}

// Kinds returns all kinds that the node defines, or those of this repository when it does not tell.
func (c *Client) Kinds(ctx context.Context) (*kinds.Set, error) { return c.kinds.all(ctx) }

func (c Context) transport() (string, credentials.TransportCredentials, error) {
	if strings.HasPrefix(c.Endpoint, "unix:") {
		return c.Endpoint, insecure.NewCredentials(), nil
	}
	address, err := Address(c.Endpoint)
	if err != nil {
		return "", nil, err
	}
	config, err := c.TLS()
	if err != nil {
		return "", nil, err
	}
	return "passthrough:///" + address, patient{credentials.NewTLS(config)}, nil
}

// Address adds the port to an endpoint that has none.
func Address(endpoint string) (string, error) {
	if endpoint == "" {
		return "", errors.New("the endpoint is empty")
	}
	if _, port, err := net.SplitHostPort(endpoint); err == nil && !strings.Contains(port, "/") {
		return endpoint, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(endpoint, "["), "]")
	if strings.ContainsAny(host, "/[] ") {
		return "", fmt.Errorf("%q is not an endpoint (HOST, HOST:PORT or unix:///PATH)", endpoint)
	}
	return net.JoinHostPort(host, Port), nil
}

// TLS returns how c proves and verifies: TLS 1.3, the client's certificate, and the node's name or fingerprint.
func (c Context) TLS() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: c.Node}
	if c.Certificate != "" || c.Key != "" {
		pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		// Always sent: crypto/tls would leave out one that the server's CA has not signed, and the refusal would say "certificate required".
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if c.Fingerprint != "" {
		// Neither name nor CA: exactly that certificate. crypto/tls calls it after its own checks, which are switched off.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return verifyPinned(state, c.Fingerprint) }
		return config, nil
	}
	if c.Node == "" {
		return nil, errors.New("the context names no node: its certificate could not be verified")
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, errors.New("the context holds no CA: the node's certificate could not be verified")
	}
	if c.ServingKey != "" {
		// crypto/tls would refuse an expired certificate before it asks: its checks are switched off, and made here.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return c.verify(state, config.RootCAs) }
	}
	return config, nil
}

// verify accepts the holder of ServingKey, and else what crypto/tls would.
func (c Context) verify(state tls.ConnectionState, roots *x509.CertPool) error {
	leaf := state.PeerCertificates[0]
	if pki.KeyFingerprint(leaf) == c.ServingKey {
		return nil
	}
	options := x509.VerifyOptions{Roots: roots, DNSName: c.Node, Intermediates: x509.NewCertPool()}
	for _, certificate := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(options)
	return err
}

func verifyPinned(state tls.ConnectionState, fingerprint string) error {
	if got := pki.Fingerprint(state.PeerCertificates[0]); got != fingerprint {
		return fmt.Errorf("the node's certificate has the fingerprint %s, not the trusted %s", got, fingerprint)
	}
	return nil
}

// ServingCertificate returns the certificate that whoever listens at endpoint shows, unverified.
func ServingCertificate(ctx context.Context, endpoint string) (*x509.Certificate, error) {
	address, err := Address(endpoint)
	if err != nil {
		return nil, err
	}
	// Nothing is sent over this connection: the caller compares the certificate with a fingerprint that a person has read.
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
