// Package network serves the API to the network: TLS 1.3 with client certificates, on the socket that PID 1 has bound.
//
// The runtime's main runs one Gate. It listens once the Certificates resource of the node holds a client CA, and not before. A change of
// that resource is in force for the next handshake and the next request; connections whose certificate is no longer accepted, because it is revoked,
// has expired or its CA is gone, or whose Roles have changed, are closed with all their streams. The Gate writes CertificatesStatuses and
// RoleStatuses, and the ServingKey of a node whose Certificates bring no pair.
package network

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/audit"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/grpc"
)

// Kinds that the Gate reads and writes, and the id of the one resource of each.
var (
	Certificates = state.Kind{Namespace: "config", Type: "Certificates.machine.cosi.dev"}
	Statuses     = state.Kind{Namespace: "status", Type: "CertificatesStatuses.machine.cosi.dev"}
)

// RoleStatuses is the kind that says which Roles are in force.
var RoleStatuses = state.Kind{Namespace: "status", Type: "RoleStatuses.machine.cosi.dev"}

// Node is the id of the Certificates that count.
const Node = "node"

// sweep is how often open connections and the clock are looked at when nothing changes. Expiry is noticed with the next request at once.
const sweep = time.Minute

// Config is what a Gate is made of.
type Config struct {
	// State is the layer below access.
	State       state.State
	Definitions access.Definitions
	Audit       *audit.Log
	Limits      *limit.Limiter
	Output      output.Writer
	// Listen makes the socket listen. It is called once.
	Listen func() (net.Listener, error)
	// Server returns a gRPC server that serves State; its requests find their state by the State method of the peer's AuthInfo.
	Server func(...grpc.ServerOption) *grpc.Server
	// Name is the node's name, for the certificate that it makes itself.
	Name func() string
	// Listening is called when the API answers, Refused with why a client was refused because of the clock.
	Listening func()
	Refused   func(string)
	// Now is the clock.
	Now func() time.Time
}

// Gate lets clients in.
type Gate struct {
	Config
	policy atomic.Pointer[policy] // nil without a trust anchor
	conns  connections
	said   map[string]bool // ids of the Roles that have a status
}

// New returns a Gate; Run opens it.
func New(c Config) *Gate {
	return &Gate{Config: c, conns: connections{open: map[*trackedConn]bool{}}, said: map[string]bool{}}
}

// Run serves until ctx is done.
func (g *Gate) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	view := observe.New(g.State, func() {
		select {
		case changed <- struct{}{}:
		default: // A wake-up is pending.
		}
	}, Certificates, ServingKeys, access.Roles)
	watched := make(chan error, 1)
	go func() { watched <- view.Run(ctx) }()
	err := g.follow(ctx, view, changed)
	cancel()
	if failed := <-watched; err == nil {
		err = failed
	}
	return err
}

func (g *Gate) follow(ctx context.Context, view *observe.View, changed <-chan struct{}) error {
	var server *grpc.Server
	ended := make(chan error, 1)
	stop := func() {
		if server != nil {
			server.Stop()
			<-ended
		}
	}
	ticker := time.NewTicker(sweep)
	defer ticker.Stop()
	for {
		select {
		case <-changed:
		case <-ticker.C:
		case err := <-ended:
			return fmt.Errorf("port: %w", err)
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
		if err := g.apply(ctx, view); err != nil {
			stop()
			return err
		}
		if server == nil && g.policy.Load() != nil {
			listener, err := g.Listen()
			if err != nil {
				return fmt.Errorf("port: %w", err)
			}
			server = g.Server(grpc.Creds(serverCredentials{g}))
			go func() { ended <- server.Serve(listener) }()
			g.Listening()
		}
	}
}

// apply takes over the resources as they are now, closes the connections that they no longer accept and writes the statuses.
func (g *Gate) apply(ctx context.Context, view *observe.View) error {
	if !view.Synced() {
		return nil
	}
	t, version, problem := g.readTrust(ctx, view)
	roles, statuses := readRoles(view)
	if fresh, now := (&policy{t, roles}), g.policy.Load(); t == nil {
		g.policy.Store(nil)
	} else if now == nil || !now.same(fresh) {
		g.policy.Store(fresh)
	}
	for _, conn := range g.conns.all() {
		if conn.stale() {
			conn.Close()
		}
	}
	if err := g.sayRoles(ctx, statuses); err != nil {
		return err
	}
	return g.Output.Put(ctx, state.Pointer{Kind: Statuses, ID: Node}, g.status(version, problem))
}

// readTrust returns what to trust from now on, the version of the resource that was read, and what is wrong with it. One that cannot be used
// leaves the one before in force, so that a slip of an admin does not lock everybody out.
func (g *Gate) readTrust(ctx context.Context, view *observe.View) (t *trust, version string, problem error) {
	for _, c := range observe.Items[machinepb.Certificates](view, Certificates) {
		if c.GetId() != Node {
			continue
		}
		version = c.GetVersion()
		if p := g.policy.Load(); p != nil {
			t = p.trust
		}
		var own *resourcepb.Resource
		if bringsNoPair(c.Spec) {
			if own, problem = g.own(ctx); problem != nil {
				continue
			}
		}
		if t.of(c.Metadata, own.GetMetadata()) {
			continue
		}
		if fresh, err := parseTrust(c.Metadata, c.Spec, own); err != nil {
			problem = err
		} else {
			t = fresh
		}
	}
	return t, version, problem
}

// sayRoles writes the statuses of Roles, and removes those of Roles that are gone.
func (g *Gate) sayRoles(ctx context.Context, statuses map[string]*machinepb.RoleStatus) error {
	for id, s := range statuses {
		if err := g.Output.Put(ctx, state.Pointer{Kind: RoleStatuses, ID: id}, s); err != nil {
			return err
		}
		g.said[id] = true
	}
	for id := range g.said {
		if statuses[id] != nil {
			continue
		}
		if err := g.Output.Delete(ctx, state.Pointer{Kind: RoleStatuses, ID: id}); err != nil {
			return err
		}
		delete(g.said, id)
	}
	return nil
}
