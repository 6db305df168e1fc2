package schema_test

import (
	"context"
	"errors"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// full is a store that takes no writes while err is set.
type full struct {
	state.State
	err error
}

func (f *full) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.State.Create(ctx, r, o)
}

func (f *full) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.State.Update(ctx, r, o)
}

func (f *full) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if f.err != nil {
		return f.err
	}
	return f.State.Destroy(ctx, p, o)
}

// TestAStoreThatIsFullIsRead: definitions are published when somebody looks, and what there is no room for must not keep anybody from reading
// the rest. Who defines a kind is told.
func TestAStoreThatIsFullIsRead(t *testing.T) {
	mount, old := builtin.Set().ByType("MountPoints.storage.cosi.dev").ID(), "olds.example.org"
	for _, why := range []error{state.ErrNoSpace, state.ErrLimit} {
		store := &full{State: memory.New(memory.Options{})}
		for _, id := range []string{mount, old} { // of the image before
			d := resource("meta", schema.Definitions.Type, id, "", &metapb.ResourceDefinitionSpec{ResourceType: "Olds.example.org"})
			if _, err := store.Create(t.Context(), d, state.WriteOptions{Owner: output.Owner}); err != nil {
				t.Fatal(err)
			}
		}
		store.err = why
		s := schema.New(store, builtin.Set(), "")
		if err := s.Recover(t.Context()); err != nil {
			t.Fatalf("%v: Recover = %v", why, err)
		}
		version := func(id string) string {
			r, err := s.Get(t.Context(), state.Pointer{Kind: schema.Definitions, ID: id})
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				t.Errorf("%v: Get(%s) = %v", why, id, err)
			}
			return r.GetMetadata().GetVersion()
		}
		all, err := s.List(t.Context(), schema.Definitions, state.Query{})
		if err != nil || len(all) != 2 {
			t.Errorf("%v: List finds %d definitions, %v; want the two that there are", why, len(all), err)
		}
		if _, err := s.List(t.Context(), schema.Namespaces, state.Query{}); err != nil {
			t.Errorf("%v: List of namespaces = %v", why, err)
		}
		if _, err := s.Watch(t.Context(), state.WatchRequest{Kind: schema.Definitions, BootstrapContents: true}); err != nil {
			t.Errorf("%v: Watch = %v", why, err)
		}
		if v := version(mount); v != "1" {
			t.Errorf("%v: the definition of before is at version %q; want 1", why, v)
		}
		if v := version("links.network.cosi.dev"); v != "" {
			t.Errorf("%v: a definition that was never published is at version %q", why, v)
		}
		if err := define(s, gadgets(t, body)); !errors.Is(err, why) {
			t.Errorf("defining a kind = %v; want %v", err, why)
		}
		store.err = nil
		if version(mount) != "2" || version("links.network.cosi.dev") != "1" {
			t.Errorf("%v: with room again the definitions are not those of the image", why)
		}
	}
}
