package client

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
)

// patient is TLS credentials whose handshake ends with the server's first byte.
//
// In TLS 1.3 the client is done before the server has looked at its certificate; the server's refusal comes as the first thing to be
// read. gRPC writes first, and reports a broken pipe instead of the reason when it loses that race. A gRPC server always speaks at once.
type patient struct {
	credentials.TransportCredentials
}

func (p patient) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, nil, err
		}
	}
	first := make([]byte, 1)
	if _, err := conn.Read(first); err != nil {
		conn.Close()
		return nil, nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return &peeked{Conn: conn, first: first}, info, nil
}

func (p patient) Clone() credentials.TransportCredentials {
	return patient{p.TransportCredentials.Clone()}
}

// peeked is a connection whose first byte has been read already.
type peeked struct {
	net.Conn
	first []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) == 0 || len(b) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.first)
	p.first = p.first[n:]
	return n, nil
}
