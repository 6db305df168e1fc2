// Package router sends each request to the store that its namespace lives in. It is the innermost layer: schema and access stand in
// front of it.
package router

import (
	"context"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// Router is a State of several stores.
type Router struct {
	stores map[string]state.State
	rest   state.State
}

// New returns a Router. Namespaces that stores does not name go to rest.
func New(rest state.State, stores map[string]state.State) *Router {
	return &Router{stores: stores, rest: rest}
}

func (r *Router) of(namespace string) state.State {
	if s, ok := r.stores[namespace]; ok {
		return s
	}
	return r.rest
}

func (r *Router) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	return r.of(p.Namespace).Get(ctx, p)
}

func (r *Router) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	return r.of(k.Namespace).List(ctx, k, q)
}

func (r *Router) Create(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return r.of(res.GetMetadata().GetNamespace()).Create(ctx, res, o)
}

func (r *Router) Update(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return r.of(res.GetMetadata().GetNamespace()).Update(ctx, res, o)
}

func (r *Router) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	return r.of(p.Namespace).Destroy(ctx, p, o)
}

func (r *Router) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	return r.of(p.Namespace).Teardown(ctx, p, o)
}

func (r *Router) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	return r.of(w.Kind.Namespace).Watch(ctx, w)
}
