package server

import (
	"context"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// between is a store in which others get to act at the moments that matter, once each.
type between struct {
	*memory.Store
	beforeDestroy func()
	afterWatch    []func()
}

func (b *between) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if act := b.beforeDestroy; act != nil {
		b.beforeDestroy = nil
		act()
	}
	return b.Store.Destroy(ctx, p, o)
}

func (b *between) Watch(ctx context.Context, request state.WatchRequest) (state.Watch, error) {
	w, err := b.Store.Watch(ctx, request)
	if len(b.afterWatch) > 0 {
		act := b.afterWatch[0]
		b.afterWatch = b.afterWatch[1:]
		act()
	}
	return w, err
}

var target = state.Pointer{Kind: state.Kind{Namespace: "default", Type: "Things.test.cosi.dev"}, ID: "a"}

func newBetween(t *testing.T, finalizers ...string) *between {
	t.Helper()
	b := &between{Store: memory.New(memory.Options{Limits: func(state.Kind) memory.Limits { return memory.Limits{Events: 2} }})}
	r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{
		Namespace: target.Namespace, Type: target.Type, Id: target.ID, Finalizers: finalizers,
	}}
	if _, err := b.Create(t.Context(), r, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// hold gives the target these finalizers.
func (b *between) hold(t *testing.T, finalizers ...string) {
	t.Helper()
	r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{
		Namespace: target.Namespace, Type: target.Type, Id: target.ID, Finalizers: finalizers, Version: b.Lookup(target).GetMetadata().GetVersion(),
	}}
	if _, err := b.Update(t.Context(), r, state.WriteOptions{}); err != nil {
		t.Error(err)
	}
}

func (b *between) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := teardownAndDestroy(ctx, b, target, state.WriteOptions{}); err != nil {
		t.Error(err)
	}
	if b.Lookup(target) != nil {
		t.Error("the resource is still there")
	}
	if b.beforeDestroy != nil || len(b.afterWatch) > 0 {
		t.Error("the test did not get to the moment that it is about")
	}
}

func TestSomebodyElseDestroysJustBefore(t *testing.T) {
	b := newBetween(t)
	b.beforeDestroy = func() {
		if err := b.Store.Destroy(t.Context(), target, state.WriteOptions{}); err != nil {
			t.Error(err)
		}
	}
	b.run(t)
}

func TestAFinalizerIsAddedJustBefore(t *testing.T) {
	b := newBetween(t)
	b.beforeDestroy = func() { b.hold(t, "late") }
	b.afterWatch = []func(){func() { b.hold(t) }}
	b.run(t)
}

func TestTheWaitGoesOnAfterFallingBehind(t *testing.T) {
	b := newBetween(t, "holder")
	b.afterWatch = []func(){
		func() {
			for range 5 { // the history holds 2 events
				b.hold(t, "holder")
			}
		},
		func() { b.hold(t) },
	}
	b.run(t)
}
