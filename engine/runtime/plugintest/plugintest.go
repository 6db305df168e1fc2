// Package plugintest runs the plugin side of the runtime inside a test: the store, the schema layer, the access layer and a plugin's own socket are the
// real ones. Tests of plugins and of the sdk use it to see a plugin from both of its ends.
package plugintest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// patience is how long something may take on a busy machine before a test gives it up.
const patience = 20 * time.Second

// Runtime serves one plugin. It ends with its test.
type Runtime struct {
	// Endpoint is for COSI_ENDPOINT.
	Endpoint string
	// Store is what the runtime holds, below the access layer.
	Store *memory.Store
	Table *plugins.Table

	t           testing.TB
	declaration *declaration.Declaration
	path        string

	stop    context.CancelFunc
	serving sync.WaitGroup
}

// Start serves the plugin that declared, a plugin.json, describes.
func Start(t testing.TB, declared []byte) *Runtime {
	t.Helper()
	d, err := declaration.Parse(declared)
	if err != nil {
		t.Fatal(err)
	}
	// t.TempDir is too long a name for a socket.
	dir, err := os.MkdirTemp("", "cosi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &Runtime{t: t, declaration: d, path: filepath.Join(dir, d.Name+".sock")}
	r.Endpoint = "unix://" + r.path
	r.Resume(true)
	t.Cleanup(r.Stop)
	return r
}

// Join serves another plugin from first's store. Stop and Resume of the two are their own; neither may be given a fresh store.
func Join(t testing.TB, first *Runtime, declared []byte) *Runtime {
	t.Helper()
	r := Start(t, declared)
	r.Stop()
	r.Store = first.Store
	r.Resume(false)
	return r
}

// Stop ends the runtime as if it had died: all connections are cut.
func (r *Runtime) Stop() {
	r.stop()
	r.serving.Wait()
}

// Resume starts the runtime again after Stop; with fresh its store is a new one.
func (r *Runtime) Resume(fresh bool) {
	r.t.Helper()
	if fresh {
		r.Store = memory.New(memory.Options{})
	}
	r.Table = plugins.NewTable(output.New(r.Store), r.declaration.Name)
	listener, err := net.Listen("unix", r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	config := plugins.Config{
		Table: r.Table, State: schema.New(r.Store, builtin.Set(), ""), Options: server.Options(),
		Register: func(g grpc.ServiceRegistrar, s state.State) {
			server.New(func(context.Context) (state.State, error) { return s, nil }).Register(g)
		},
		Registered: &pluginpb.Registered{RuntimeVersion: "test", Epoch: r.Store.Epoch()},
	}
	r.serving.Go(func() { _ = plugins.Serve(ctx, listener, r.declaration, uint32(os.Getuid()), config) })
}

// Status returns the plugin's PluginStatus.
func (r *Runtime) Status() *servicepb.PluginStatus {
	s := &servicepb.PluginStatus{}
	r.Get(r.declaration.Name, s)
	return s
}

// WaitReady waits until the plugin has reconciled.
func (r *Runtime) WaitReady() {
	r.t.Helper()
	r.Wait("the plugin is ready", func() bool { return r.Status().GetReady() })
}

// Wait waits until something is true.
func (r *Runtime) Wait(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("still not so after %v: %s", patience, what)
		}
	}
}

// Apply writes a resource as people do: it is created or replaced. Type and namespace are those of spec's kind.
func (r *Runtime) Apply(id string, spec proto.Message) *resourcepb.Resource {
	r.t.Helper()
	content, err := proto.Marshal(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	p := pointer(id, spec)
	for {
		resource, err := r.Store.Get(r.t.Context(), p)
		if err != nil {
			resource = &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: p.Namespace, Type: p.Type, Id: id, Version: "1", Phase: state.PhaseRunning}}
			resource.Spec = &resourcepb.Spec{ProtoSpec: content}
			resource, err = r.Store.Create(r.t.Context(), resource, state.WriteOptions{})
		} else {
			resource = proto.CloneOf(resource)
			resource.Spec = &resourcepb.Spec{ProtoSpec: content}
			resource, err = r.Store.Update(r.t.Context(), resource, state.WriteOptions{})
		}
		switch {
		case err == nil:
			return resource
		case r.t.Context().Err() != nil:
			r.t.Fatal(err)
		}
	}
}

// Teardown begins to remove a resource that people wrote, of the kind of spec.
func (r *Runtime) Teardown(id string, spec proto.Message) {
	r.t.Helper()
	if _, err := r.Store.Teardown(r.t.Context(), pointer(id, spec), state.WriteOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// Delete removes a resource that people wrote, of the kind of spec: it waits for the finalizers to go.
func (r *Runtime) Delete(id string, spec proto.Message) {
	r.t.Helper()
	r.Teardown(id, spec)
	r.Wait("no finalizer holds "+id, func() bool {
		return r.Store.Destroy(r.t.Context(), pointer(id, spec), state.WriteOptions{}) == nil
	})
}

// Get reads a resource of the kind of spec into spec. It returns nil when there is none.
func (r *Runtime) Get(id string, spec proto.Message) *resourcepb.Metadata {
	r.t.Helper()
	resource, err := r.Store.Get(context.Background(), pointer(id, spec))
	if err != nil {
		return nil
	}
	proto.Reset(spec)
	if err := proto.Unmarshal(resource.GetSpec().GetProtoSpec(), spec); err != nil {
		r.t.Fatal(err)
	}
	return resource.GetMetadata()
}

func pointer(id string, spec proto.Message) state.Pointer {
	k := proto.GetExtension(spec.ProtoReflect().Descriptor().Options(), metapb.E_Kind).(*metapb.ResourceDefinitionSpec)
	return state.Pointer{Kind: state.Kind{Namespace: k.GetDefaultNamespace(), Type: k.GetResourceType()}, ID: id}
}
