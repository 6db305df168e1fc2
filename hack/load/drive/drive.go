// Package drive measures a server of the State API from outside: how many operations it answers, how long they take, and what they cost
// it. It speaks the public API alone, so that any server can be measured with it; what a server costs is read from /proc, so that it runs
// on the same machine. hack/load and hack/bench call it.
//
// The load takes its share of the machine: rates are those of server and load together, as they are with any client. What an operation
// costs the server is the figure to compare.
package drive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

const (
	// connections are how many the load shares.
	connections = 4
	// specBytes is the content of each resource.
	specBytes = 256
	namespace = "default"
)

// Server is a server under load. Every resource that is made has a type of its own figure, and is removed again where there are many.
type Server struct {
	clients []resourcepb.StateClient
	conns   []*grpc.ClientConn
	process process
	syncs   func() (Syncs, error) // nil: it does not say
	kinds   int
}

// Open connects to the server that listens on unix:///PATH. It fails when nobody does.
func Open(endpoint string) (*Server, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok {
		return nil, fmt.Errorf("%s: only unix sockets tell whose CPU to count (unix:///tmp/x.sock)", endpoint)
	}
	pid, err := listener(path)
	if err != nil {
		return nil, err
	}
	s := &Server{process: process(pid)}
	for range connections {
		conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.conns = append(s.conns, conn)
		s.clients = append(s.clients, resourcepb.NewStateClient(conn))
	}
	return s, nil
}

// Close ends the connections.
func (s *Server) Close() error {
	var failed error
	for _, c := range s.conns {
		failed = errors.Join(failed, c.Close())
	}
	return failed
}

// client returns the connection of a worker.
func (s *Server) client(worker int) resourcepb.StateClient { return s.clients[worker%len(s.clients)] }

// newKind names a kind that nothing has been written of.
func (s *Server) newKind() string {
	s.kinds++
	return fmt.Sprintf("Loads%d-%d.load.cosi.dev", unix.Getpid(), s.kinds)
}

// listener returns the process that listens on the socket.
func listener(path string) (pid int, err error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(failed, err); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return int(peer.Pid), nil
}

// thing returns a resource of a kind.
func thing(kind string, id string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: kind, Id: id, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: bytes.Repeat([]byte{0x2a}, specBytes)},
	}
}

// fill creates n resources; edit, unless it is nil, is called with each before.
func (s *Server) fill(ctx context.Context, kind string, n int, edit func(i int, r *resourcepb.Resource)) error {
	return s.spread(n, func(c resourcepb.StateClient, i int) error {
		r := thing(kind, name(i))
		if edit != nil {
			edit(i, r)
		}
		_, err := c.Create(ctx, &resourcepb.CreateRequest{Resource: r})
		return err
	})
}

// empty destroys what fill has created.
func (s *Server) empty(ctx context.Context, kind string, n int) error {
	return s.spread(n, func(c resourcepb.StateClient, i int) error {
		_, err := c.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: namespace, Type: kind, Id: name(i)})
		return err
	})
}

func name(i int) string { return fmt.Sprintf("resource-%06d", i) }
