package plugins

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// PeerUID returns transport credentials for a unix socket that let in only processes of the user uid, by SO_PEERCRED.
func PeerUID(uid uint32) credentials.TransportCredentials { return peerCredentials{uid} }

type peerCredentials struct{ uid uint32 }

// peerInfo says that the peer was checked and that the channel does not leave the machine.
type peerInfo struct{ credentials.CommonAuthInfo }

func (peerInfo) AuthType() string { return "peer-uid" }

func (c peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uid, err := peerUID(conn)
	if err != nil {
		return nil, nil, err
	}
	if uid != c.uid {
		return nil, nil, fmt.Errorf("peer of %s has uid %d, not %d", conn.LocalAddr(), uid, c.uid)
	}
	return conn, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
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
