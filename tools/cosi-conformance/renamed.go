package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// renamed shows a state whose kinds have other names than the rules use: each rule then finds kinds that hold nothing, whatever the server
// holds and however a rule before it ended.
type renamed struct {
	next      state.State
	namespace string
	suffix    string
}

// The kinds of the rules, and what their names begin with.
const ruleNamespace, ruleSuffix = "default", ".test.cosi.dev"

func (r *renamed) kind(k state.Kind) state.Kind {
	if k.Type == "" {
		return k
	}
	return state.Kind{Namespace: r.namespace, Type: strings.TrimSuffix(k.Type, ruleSuffix) + r.suffix}
}

func (r *renamed) pointer(p state.Pointer) state.Pointer {
	return state.Pointer{Kind: r.kind(p.Kind), ID: p.ID}
}

// there returns a resource as the server knows it.
func (r *renamed) there(res *resourcepb.Resource) *resourcepb.Resource {
	c := proto.CloneOf(res)
	if c.GetMetadata() != nil {
		k := r.kind(state.Kind{Namespace: c.Metadata.Namespace, Type: c.Metadata.Type})
		c.Metadata.Namespace, c.Metadata.Type = k.Namespace, k.Type
	}
	return c
}

// here returns a resource as the rule knows it.
func (r *renamed) here(res *resourcepb.Resource) *resourcepb.Resource {
	c := proto.CloneOf(res)
	if c.GetMetadata() != nil && strings.HasSuffix(c.Metadata.Type, r.suffix) {
		c.Metadata.Namespace, c.Metadata.Type = ruleNamespace, strings.TrimSuffix(c.Metadata.Type, r.suffix)+ruleSuffix
	}
	return c
}

func (r *renamed) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	got, err := r.next.Get(ctx, r.pointer(p))
	return r.here(got), r.err(err)
}

func (r *renamed) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	all, err := r.next.List(ctx, r.kind(k), q)
	for i, res := range all {
		all[i] = encoded.Of(r.here(res.Message()))
	}
	return all, r.err(err)
}

func (r *renamed) Create(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	created, err := r.next.Create(ctx, r.there(res), o)
	return r.here(created), r.err(err)
}

func (r *renamed) Update(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	updated, err := r.next.Update(ctx, r.there(res), o)
	return r.here(updated), r.err(err)
}

func (r *renamed) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	return r.err(r.next.Destroy(ctx, r.pointer(p), o))
}

func (r *renamed) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	torn, err := r.next.Teardown(ctx, r.pointer(p), o)
	return r.here(torn), r.err(err)
}

func (r *renamed) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	w.Kind = r.kind(w.Kind)
	watch, err := r.next.Watch(ctx, w)
	if err != nil {
		return nil, r.err(err)
	}
	return &renamedWatch{watch, r}, nil
}

type renamedWatch struct {
	state.Watch
	state *renamed
}

func (w *renamedWatch) Next(ctx context.Context) ([]*state.Event, error) {
	events, err := w.Watch.Next(ctx)
	for i, e := range events {
		c := proto.CloneOf(e)
		c.Resource, c.Old = w.state.here(c.Resource), w.state.here(c.Old)
		events[i] = c
	}
	return events, w.state.err(err)
}

// err returns an error that names the kinds as the rule knows them.
func (r *renamed) err(err error) error {
	if err == nil {
		return nil
	}
	return &renamedError{err, strings.NewReplacer(r.suffix, ruleSuffix, r.namespace+"/", ruleNamespace+"/").Replace(err.Error())}
}

type renamedError struct {
	error
	text string
}

func (e *renamedError) Error() string { return e.text }

func (e *renamedError) Unwrap() error { return e.error }

// clean removes what a rule has left.
func (r *renamed) clean() {
	for _, typ := range []string{"Things", "OtherThings"} {
		clean(r.next, state.Kind{Namespace: r.namespace, Type: typ + r.suffix})
	}
}

func clean(s state.State, k state.Kind) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the rule's time may be over
	defer cancel()
	all, err := s.List(ctx, k, state.Query{})
	if err != nil {
		return
	}
	for _, listed := range all {
		r := listed.Message()
		o := state.WriteOptions{Owner: r.GetMetadata().GetOwner()}
		if len(r.GetMetadata().GetFinalizers()) > 0 {
			free := proto.CloneOf(r)
			free.Metadata.Finalizers = nil
			_, _ = s.Update(ctx, free, o) // what cannot be removed stays: its kind is used by no other rule
		}
		_ = s.Destroy(ctx, state.PointerTo(r), o)
	}
}
