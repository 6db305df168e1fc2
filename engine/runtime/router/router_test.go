package router_test

import (
	"context"
	"errors"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/router"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

func TestANamespaceLivesInItsStoreOnly(t *testing.T) {
	ctx, rest, durable := context.Background(), memory.New(memory.Options{}), memory.New(memory.Options{})
	r := router.New(rest, map[string]state.State{"config": durable})
	for namespace, home := range map[string]state.State{"config": durable, "status": rest} {
		p := state.Pointer{Kind: state.Kind{Namespace: namespace, Type: "T"}, ID: "a"}
		watch, err := r.Watch(ctx, state.WatchRequest{Kind: p.Kind})
		if err != nil {
			t.Fatal(err)
		}
		made, err := r.Create(ctx, &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: namespace, Type: "T", Id: "a"}}, state.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Next(ctx); err != nil {
			t.Error(err)
		}
		if _, err := r.Update(ctx, made, state.WriteOptions{}); err != nil {
			t.Error(err)
		}
		if all, err := r.List(ctx, p.Kind, state.Query{}); err != nil || len(all) != 1 {
			t.Errorf("%s: list %v, %v", namespace, all, err)
		}
		for name, s := range map[string]state.State{"durable": durable, "rest": rest} {
			if _, err := s.Get(ctx, p); (err == nil) != (s == home) {
				t.Errorf("%s in the store %s: %v", p, name, err)
			}
		}
		if _, err := r.Teardown(ctx, p, state.WriteOptions{}); err != nil {
			t.Error(err)
		}
		if err := r.Destroy(ctx, p, state.WriteOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := r.Get(ctx, p); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s: %v; want ErrNotFound", p, err)
		}
	}
}
