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
	a, err := i.conn.admission()
	if err != nil {
		return nil, fmt.Errorf("%w: the client certificate is no longer accepted", state.ErrDenied)
	}
	return a.state, nil
}

func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p := c.gate.policy.Load()
	if p == nil {
		raw.Close()
		return nil, nil, errors.New("no trust anchor")
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	conn := tls.Server(raw, c.gate.config(p))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, err
	}
	tracked := &trackedConn{Conn: conn, gate: c.gate, chain: conn.ConnectionState().PeerCertificates}
	// Tracked first and checked then: a change of trust in between finds the connection.
	c.gate.conns.add(tracked)
	if _, err := tracked.admission(); err != nil {
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
func (g *Gate) config(p *policy) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{p.trust.serving},
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert,
		ClientCAs:              p.trust.pool, // named to the client, so that it can choose
		SessionTicketsDisabled: true,         // a resumed session would bring an old answer
		Time:                   g.Now,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := p.admit(s.PeerCertificates, g.Now())
			if errors.Is(err, errClock) {
				g.Refused(err.Error())
			}
			return err
		},
	}
}

// trackedConn is a connection that is closed when its certificate is no longer accepted, or gives other rights.
type trackedConn struct {
	net.Conn
	gate  *Gate
	chain []*x509.Certificate
	last  atomic.Pointer[admission]
}

// admission returns what the certificate gives now, or why it gives nothing.
func (c *trackedConn) admission() (*admission, error) {
	p, now := c.gate.policy.Load(), c.gate.Now()
	if p == nil {
		return nil, fmt.Errorf("%w: no trust anchor", errRefused)
	}
	if last := c.last.Load(); last.holds(p, now) {
		return last, nil
	}
	fresh, err := p.admit(c.chain, now)
	if err != nil {
		return nil, err
	}
	fresh.who.Address = c.RemoteAddr().String()
	fresh.person.Definitions = c.gate.Definitions
	seen := c.gate.Audit.People(access.New(keeper{c.gate.Config.State, c}, fresh.person), fresh.who)
	fresh.state = c.gate.Limits.State(seen, fresh.who.Role+"/"+fresh.who.Name)
	c.last.Store(fresh)
	return fresh, nil
}

// stale reports whether the connection must end: its certificate is refused now, or what it gives has changed under streams that are open.
func (c *trackedConn) stale() bool {
	last := c.last.Load()
	now, err := c.admission()
	return err != nil || last != nil && last.roles != now.roles
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
