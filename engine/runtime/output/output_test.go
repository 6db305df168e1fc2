package output_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

var pointer = state.Pointer{Kind: state.Kind{Namespace: "status", Type: "PluginStatuses.service.cosi.dev"}, ID: "mount"}

func TestPutWritesOnlyWhatDiffers(t *testing.T) {
	store, ctx := memory.New(memory.Options{}), context.Background()
	w := output.New(store)
	for i, c := range []struct {
		write   func(context.Context, state.Pointer, *servicepb.PluginStatus) error
		state   string
		version string
	}{
		{put(w), "Starting", "1"}, {put(w), "Starting", "1"}, {put(w), "Ready", "2"}, {appendTo(w), "Ready", "3"},
	} {
		if err := c.write(ctx, pointer, &servicepb.PluginStatus{State: c.state}); err != nil {
			t.Fatal(err)
		}
		got, err := store.Get(ctx, pointer)
		if err != nil || got.GetMetadata().GetVersion() != c.version || got.GetMetadata().GetOwner() != output.Owner {
			t.Errorf("%d: %v, %v; want version %s", i, got, err, c.version)
		}
	}
	for range 2 {
		if err := w.Delete(ctx, pointer); err != nil {
			t.Fatal(err)
		}
	}
}

func put(w output.Writer) func(context.Context, state.Pointer, *servicepb.PluginStatus) error {
	return func(ctx context.Context, p state.Pointer, s *servicepb.PluginStatus) error { return w.Put(ctx, p, s) }
}

func appendTo(w output.Writer) func(context.Context, state.Pointer, *servicepb.PluginStatus) error {
	return func(ctx context.Context, p state.Pointer, s *servicepb.PluginStatus) error {
		return w.Append(ctx, p, s)
	}
}

func TestConcurrentWritersAllGetThrough(t *testing.T) {
	store, ctx := memory.New(memory.Options{}), context.Background()
	w := output.New(store)
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for range 20 {
				if err := w.Append(ctx, pointer, &servicepb.PluginStatus{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if got, err := store.Get(ctx, pointer); err != nil || got.GetMetadata().GetVersion() != "160" {
		t.Errorf("%v, %v; want version 160", got, err)
	}
}

func TestAnothersResourceIsLeftAlone(t *testing.T) {
	store, ctx := memory.New(memory.Options{}), context.Background()
	r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: pointer.Namespace, Type: pointer.Type, Id: pointer.ID}}
	if _, err := store.Create(ctx, r, state.WriteOptions{Owner: "other"}); err != nil {
		t.Fatal(err)
	}
	if err := output.New(store).Put(ctx, pointer, &servicepb.PluginStatus{State: "x"}); !errors.Is(err, state.ErrOwner) {
		t.Errorf("%v; want ErrOwner", err)
	}
}
