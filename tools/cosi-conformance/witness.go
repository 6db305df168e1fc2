package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

func (h *host) refusals() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.refused) == 0 {
		return nil
	}
	return errors.New(strings.Join(h.refused, "\n"))
}

// changed reports whether a resource has another version than r.
func (h *host) changed(ctx context.Context, r *resourcepb.Resource) bool {
	now, err := h.store.Get(ctx, state.PointerTo(r))
	return err == nil && now.GetMetadata().GetVersion() != r.GetMetadata().GetVersion()
}

// witness notes each call that is refused.
type witness struct {
	state.State
	host *host
}

func (w *witness) note(err error) error {
	if errors.Is(err, state.ErrDenied) || errors.Is(err, state.ErrOwner) {
		w.host.mu.Lock()
		defer w.host.mu.Unlock()
		if text := err.Error(); !slices.Contains(w.host.refused, text) && len(w.host.refused) < 20 {
			w.host.refused = append(w.host.refused, text)
		}
	}
	return err
}

func (w *witness) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	r, err := w.State.Get(ctx, p)
	return r, w.note(err)
}

func (w *witness) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	all, err := w.State.List(ctx, k, q)
	return all, w.note(err)
}

func (w *witness) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	created, err := w.State.Create(ctx, r, o)
	return created, w.note(err)
}

func (w *witness) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	updated, err := w.State.Update(ctx, r, o)
	if err != nil && w.host.declaration.Reads(r.GetMetadata().GetType()) && w.host.changed(ctx, r) {
		return updated, err // somebody else was faster: to the runtime a finalizer on an older version is a change of the rest
	}
	return updated, w.note(err)
}

func (w *witness) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	return w.note(w.State.Destroy(ctx, p, o))
}

func (w *witness) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	r, err := w.State.Teardown(ctx, p, o)
	return r, w.note(err)
}

func (w *witness) Watch(ctx context.Context, q state.WatchRequest) (state.Watch, error) {
	watch, err := w.State.Watch(ctx, q)
	return watch, w.note(err)
}
