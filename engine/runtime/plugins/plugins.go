// Package plugins serves each plugin on its own socket: cosi.resource.State with the plugin's rights, and the session by which a plugin
// registers, says that it is ready and is asked to drain. It writes PluginStatuses.
//
// The runtime's main makes one Table and one Server a declaration. A connection's identity is its socket, checked against the peer's
// user id; a plugin that loses its session loses nothing that it wrote.
package plugins

import (
	"context"
	"net"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/peer"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/grpc"
)

// Config is what all plugins share.
type Config struct {
	Table *Table
	// State is the layer below access.
	State state.State
	// Guard, if set, is put around what a plugin sees.
	Guard func(seen state.State, plugin string) state.State
	// Register puts cosi.resource.State for a State on a gRPC server. The State is that of peer.State too.
	Register func(grpc.ServiceRegistrar, state.State)
	// Registered is the answer to each registration.
	Registered *pluginpb.Registered
	// Options are for every gRPC server.
	Options []grpc.ServerOption
}

// Serve serves d's plugin on listener until ctx is done; the peer's user id must be uid.
func Serve(ctx context.Context, listener net.Listener, d *declaration.Declaration, uid uint32, c Config) error {
	identity := access.NewPlugin(d)
	guarded := access.New(c.State, identity)
	if c.Guard != nil {
		guarded = c.Guard(guarded, d.Name)
	}
	server := grpc.NewServer(append([]grpc.ServerOption{grpc.Creds(peer.UID(uid, guarded))}, c.Options...)...)
	c.Register(server, guarded)
	pluginpb.RegisterPluginServer(server, &service{declaration: d, identity: identity, table: c.Table, registered: c.Registered})

	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		server.Stop()
		<-ended
		return ctx.Err()
	}
}
