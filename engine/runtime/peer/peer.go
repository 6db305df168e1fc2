// Package peer knows who is at the other end of a connection to the runtime.
//
// Transport credentials of this package, and those of package network, leave in each connection what state its requests see; the State
// service asks State for it.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Identified is an AuthInfo that knows what its peer may see. State is asked for each request and may come to refuse.
type Identified interface {
	credentials.AuthInfo
	State() (state.State, error)
}

// State returns the state of the peer of a request, ErrDenied if it is nobody that we know.
func State(ctx context.Context) (state.State, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if known, ok := p.AuthInfo.(Identified); ok {
			return known.State()
		}
	}
	return nil, fmt.Errorf("%w: the connection has no identity", state.ErrDenied)
}

// UID returns transport credentials for a unix socket that let in only processes of the user uid, by SO_PEERCRED, and show them s.
func UID(uid uint32, s state.State) credentials.TransportCredentials { return peerCredentials{uid, s} }

type peerCredentials struct {
	uid   uint32
	state state.State
}

// peerInfo says that the peer was checked and that the channel does not leave the machine.
type peerInfo struct {
	credentials.CommonAuthInfo
	state state.State
}

func (peerInfo) AuthType() string { return "peer-uid" }

func (i peerInfo) State() (state.State, error) { return i.state, nil }

func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uid, err := peerUID(conn)
	if err != nil {
		return nil, nil, err
	}
	if uid != c.uid {
		return nil, nil, fmt.Errorf("peer of %s has uid %d, not %d", conn.LocalAddr(), uid, c.uid)
	}
	return conn, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, c.state}, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peer-uid"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }

func peerUID(conn net.Conn) (uint32, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is no unix socket", conn.LocalAddr())
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credential *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		credential, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, fmt.Errorf("SO_PEERCRED of %s: %w", conn.LocalAddr(), failed)
	}
	return credential.Uid, nil
}
