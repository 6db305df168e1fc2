package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// host is the runtime of a node, for one plugin, and the plugin's process.
type host struct {
	declaration *declaration.Declaration
	program     string
	said        io.Writer
	dir         string
	kinds       *kinds.Set
	store       *memory.Store
	top         *schema.State
	table       *plugins.Table

	end     context.CancelFunc
	serving sync.WaitGroup

	plugin *exec.Cmd
	ended  chan error // holds the end of the process when it has come

	mu      sync.Mutex // guards refused
	refused []string
}

func newHost(program string, d *declaration.Declaration, said io.Writer) (*host, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	set := builtin.Set()
	if err := schema.Load(set, []*declaration.Declaration{d}); err != nil {
		return nil, err
	}
	for _, typ := range d.Outputs {
		if set.ByType(typ) == nil {
			return nil, fmt.Errorf("the declaration has the output %s, which is no kind", typ)
		}
	}
	dir, err := os.MkdirTemp("", "cosi") // a socket's name is short
	if err != nil {
		return nil, err
	}
	h := &host{declaration: d, program: program, said: said, dir: dir, kinds: set, store: memory.New(memory.Options{})}
	h.top = schema.New(h.store, set, "")
	if err := h.start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return h, nil
}

func (h *host) socket() string { return filepath.Join(h.dir, "p.sock") }

// start serves the plugin; stop cuts all connections, as a runtime that dies does.
func (h *host) start() error {
	h.table = plugins.NewTable(output.New(h.top), h.declaration.Name)
	if err := h.table.Publish(context.Background()); err != nil { // what an earlier runtime said of the plugin is over
		return err
	}
	listener, err := net.Listen("unix", h.socket())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.end = cancel
	config := plugins.Config{
		// The sessions of a runtime that has stopped write nothing over what the next one says.
		Table: h.table, State: h.top, Options: append(server.Options(), grpc.WaitForHandlers(true)),
		Guard: func(seen state.State, _ string) state.State { return &witness{seen, h} },
		Register: func(g grpc.ServiceRegistrar, s state.State) {
			server.New(func(context.Context) (state.State, error) { return s, nil }).Register(g)
		},
		Registered: &pluginpb.Registered{RuntimeVersion: "conformance", Epoch: h.store.Epoch()},
	}
	h.serving.Go(func() { _ = plugins.Serve(ctx, listener, h.declaration, uint32(os.Getuid()), config) })
	return nil
}

func (h *host) stop() {
	h.end()
	h.serving.Wait()
}

// forget gives the runtime, while it is stopped, another store, which has only the inputs: in the versions and with the finalizers that they have.
func (h *host) forget(ctx context.Context, inputs []*resourcepb.Resource) error {
	store := memory.New(memory.Options{})
	for _, input := range inputs {
		kept, err := h.store.Get(ctx, state.PointerTo(input))
		if err != nil {
			return err
		}
		r := proto.CloneOf(kept)
		o := state.WriteOptions{Owner: r.GetMetadata().GetOwner()}
		made, err := store.Create(ctx, r, o)
		for err == nil && made.GetMetadata().GetVersion() != kept.GetMetadata().GetVersion() {
			made, err = store.Update(ctx, made, o)
		}
		if err != nil {
			return err
		}
	}
	h.store, h.top = store, schema.New(store, h.kinds, "")
	return nil
}

func (h *host) close() {
	h.killPlugin()
	h.stop()
	os.RemoveAll(h.dir)
}

// apply creates a resource, or gives it a new version with the same content.
func (h *host) apply(ctx context.Context, r *resourcepb.Resource) error {
	for {
		_, err := h.top.Create(ctx, r, state.WriteOptions{})
		if !errors.Is(err, state.ErrExists) {
			return err
		}
		old, err := h.store.Get(ctx, state.PointerTo(r))
		if err != nil {
			return err
		}
		fresh := proto.CloneOf(old)
		fresh.Spec = r.GetSpec()
		if _, err = h.top.Update(ctx, fresh, state.WriteOptions{}); !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}
