package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/grpc/credentials"
)

// handshakeTime is how long a client may take: an open port must not collect half-open connections.
const handshakeTime = 10 * time.Second

// credentials are the transport credentials of the network's gRPC server: TLS 1.3 with the trust in force at each handshake.
type serverCredentials struct{ gate *Gate }

// info is what a connection's peer has shown. State is asked for each request.
type info struct {
	credentials.TLSInfo
	conn *trackedConn
}

// State returns the state as the client may see it now: its certificate may have expired or been revoked since the handshake.
func (i info) State() (state.State, error) {
	role, err := i.conn.role()
	if err != nil {
		return nil, fmt.Errorf("%w: the client certificate is no longer accepted", state.ErrDenied)
	}
	return i.conn.gate.states[role], nil
}

func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t := c.gate.trust.Load()
	if t == nil {
		raw.Close()
		return nil, nil, errors.New("no trust anchor")
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	conn := tls.Server(raw, c.gate.config(t))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, err
	}
	tracked := &trackedConn{Conn: conn, gate: c.gate, chain: conn.ConnectionState().PeerCertificates}
	// Tracked first and checked then: a change of trust in between finds the connection.
	c.gate.conns.add(tracked)
	if _, err := tracked.role(); err != nil {
		tracked.Close()
		return nil, nil, err
	}
	i := info{TLSInfo: credentials.TLSInfo{State: conn.ConnectionState()}, conn: tracked}
	i.SecurityLevel = credentials.PrivacyAndIntegrity
	return tracked, i, nil
}

func (serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

func (serverCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c serverCredentials) Clone() credentials.TransportCredentials { return c }

func (serverCredentials) OverrideServerName(string) error { return nil }

// config returns the TLS configuration for one handshake. The chain is verified here and not by crypto/tls, because the node must say in
// words when it is its clock that does not fit.
func (g *Gate) config(t *trust) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{t.serving},
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert,
		ClientCAs:              t.pool, // named to the client, so that it can choose
		SessionTicketsDisabled: true,   // a resumed session would bring an old answer
		Time:                   g.Now,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := t.verify(s.PeerCertificates, g.Now())
			if errors.Is(err, errClock) {
				g.Refused(err.Error())
			}
			return err
		},
	}
}

// trackedConn is a connection that is closed when its certificate is no longer accepted.
type trackedConn struct {
	net.Conn
	gate  *Gate
	chain []*x509.Certificate
	grant atomic.Pointer[grant] // the last
}

// role returns the role that the certificate gives now, or why it gives none.
func (c *trackedConn) role() (access.Role, error) {
	t, now := c.gate.trust.Load(), c.gate.Now()
	if t == nil {
		return "", fmt.Errorf("%w: no trust anchor", errRefused)
	}
	if last := c.grant.Load(); last.holds(t, now) {
		return last.role, nil
	}
	fresh, err := t.verify(c.chain, now)
	if err != nil {
		return "", err
	}
	c.grant.Store(fresh)
	return fresh.role, nil
}

func (c *trackedConn) Close() error {
	c.gate.conns.remove(c)
	return c.Conn.Close()
}

// connections are the open ones.
type connections struct {
	mu   sync.Mutex // guards open
	open map[*trackedConn]bool
}

func (c *connections) add(conn *trackedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = true
}

func (c *connections) remove(conn *trackedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

func (c *connections) all() []*trackedConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*trackedConn
	for conn := range c.open {
		all = append(all, conn)
	}
	return all
}
