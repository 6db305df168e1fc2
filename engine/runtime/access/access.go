// Package access decides who may see and write which resources.
//
// Every listener of the runtime puts one State of this package, made for the identity behind the connection, in front of the schema
// layer. What it refuses it refuses with ErrDenied (or ErrInvalid) and a sentence that says what was tried and why it is not allowed.
// The runtime itself writes below this layer.
package access

import (
	"context"
	"fmt"
	"slices"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"google.golang.org/protobuf/proto"
)

// Namespaces of a node that people write.
const (
	NamespaceConfig   = "config"
	NamespaceRequests = "requests"
	NamespaceMeta     = "meta"
)

// typeDefinitions lives in meta.
const typeDefinitions = "ResourceDefinitions.meta.cosi.dev"

// AnnotationProvenance says that user data or the image wrote a resource last. Persons cannot set it: their write removes it.
const AnnotationProvenance = "cosi.dev/provenance"

// Identity is who is at the other end of a connection. It says what that one may do; each error wraps ErrDenied.
type Identity interface {
	// Read is asked before what Get, List and Watch have read is shown. p has no id where all resources of a kind are asked for: then those are shown whose id
	// the filter lets through, all if it is nil.
	Read(verb Verb, p state.Pointer) (Filter, error)
	// Write is asked before Create, Destroy, Teardown, and before an Update with the resource as it is now and as it shall be:
	// current is nil on Create, wanted on Destroy and Teardown.
	Write(verb Verb, current, wanted *resourcepb.Resource, owner string) error
	// Prepare returns what is written for r. It does not change r.
	Prepare(r *resourcepb.Resource) *resourcepb.Resource
}

// Filter says whether a resource with that id is shown.
type Filter func(id string) bool

// Verb is a call of the API by its name there.
type Verb string

const (
	Get      Verb = "get"
	List     Verb = "list"
	Watch    Verb = "watch"
	Create   Verb = "create"
	Update   Verb = "update"
	Destroy  Verb = "destroy"
	Teardown Verb = "teardown"
)

// Definitions returns the definition of a type, nil for an unknown one.
type Definitions func(typ string) *metapb.ResourceDefinitionSpec

func (d Definitions) sensitive(typ string) bool {
	return d(typ).GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE
}

// New returns next as id sees it.
func New(next state.State, id Identity) state.State { return &guard{next: next, id: id} }

type guard struct {
	next state.State
	id   Identity
}

// Get reads first and asks then: a kind may become Sensitive, and get its first secret, at any moment before.
func (g *guard) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	r, err := g.next.Get(ctx, p)
	if _, refused := g.id.Read(Get, p); refused != nil {
		return nil, refused
	}
	return r, err
}

// List reads first, as Get does.
func (g *guard) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	all, err := g.next.List(ctx, k, q)
	shown, refused := g.id.Read(List, state.Pointer{Kind: k})
	if refused != nil {
		return nil, refused
	}
	if shown != nil {
		all = slices.DeleteFunc(all, func(r encoded.Resource) bool { return !shown(r.ID()) })
	}
	return all, err
}

func (g *guard) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	p := state.Pointer{Kind: w.Kind}
	if w.ID != nil {
		p.ID = *w.ID
	}
	if _, err := g.id.Read(Watch, p); err != nil {
		return nil, err
	}
	watch, err := g.next.Watch(ctx, w)
	if err != nil {
		return nil, err
	}
	return &guarded{watch, g.id, p}, nil
}

// guarded asks again before it shows anything: since the watch began, its kind may have been defined or have become Sensitive. It leaves out
// events of resources that are not shown; an event without an id is about the watch itself.
type guarded struct {
	state.Watch
	id Identity
	of state.Pointer
}

func (g *guarded) Next(ctx context.Context) ([]*state.Event, error) {
	for {
		events, err := g.Watch.Next(ctx)
		if err != nil {
			return nil, err
		}
		shown, err := g.id.Read(Watch, g.of)
		if err != nil {
			return nil, err
		}
		if shown == nil || g.of.ID != "" {
			return events, nil
		}
		var left []*state.Event
		for _, e := range events {
			if id := e.GetResource().GetMetadata().GetId(); id == "" || shown(id) {
				left = append(left, e)
			}
		}
		if len(left) > 0 {
			return left, nil
		}
	}
}

func (g *guard) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := g.id.Write(Create, nil, r, o.Owner); err != nil {
		return nil, err
	}
	return g.next.Create(ctx, g.id.Prepare(r), o)
}

// Update compares with what is there now. The store checks the version again, so a resource that changes in between is a conflict.
func (g *guard) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	current, err := g.current(ctx, Update, r, o)
	if err != nil {
		return nil, err
	}
	if current.GetMetadata().GetVersion() == r.GetMetadata().GetVersion() {
		if err := g.id.Write(Update, current, r, o.Owner); err != nil {
			return nil, err
		}
		if err := lateFinalizers(current, r); err != nil {
			return nil, err
		}
	}
	return g.next.Update(ctx, g.id.Prepare(r), o)
}

// current returns what the update replaces. One who may not even name the resource as it is does not learn whether it exists.
func (g *guard) current(ctx context.Context, verb Verb, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	p := state.PointerTo(r)
	current, err := g.next.Get(ctx, p)
	if err == nil {
		return current, nil
	}
	if refused := g.id.Write(verb, nil, r, o.Owner); refused != nil {
		return nil, refused
	}
	return nil, err
}

func (g *guard) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if err := g.id.Write(Destroy, named(p), nil, o.Owner); err != nil {
		return err
	}
	return g.next.Destroy(ctx, p, o)
}

func (g *guard) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := g.id.Write(Teardown, named(p), nil, o.Owner); err != nil {
		return nil, err
	}
	return g.next.Teardown(ctx, p, o)
}

func named(p state.Pointer) *resourcepb.Resource {
	return &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: p.Namespace, Type: p.Type, Id: p.ID}}
}

// lateFinalizers refuses new finalizers on what is being torn down: its destroyer has already looked at them.
func lateFinalizers(current, wanted *resourcepb.Resource) error {
	if current.GetMetadata().GetPhase() != state.PhaseTearingDown {
		return nil
	}
	for _, f := range wanted.GetMetadata().GetFinalizers() {
		if !slices.Contains(current.GetMetadata().GetFinalizers(), f) {
			return fmt.Errorf("%w: %s is being torn down: finalizer %q comes too late", state.ErrInvalid, state.PointerTo(current), f)
		}
	}
	return nil
}

// withoutAnnotation returns r without the annotation, r itself if it has none.
func withoutAnnotation(r *resourcepb.Resource, key string) *resourcepb.Resource {
	if _, there := r.GetMetadata().GetAnnotations()[key]; !there {
		return r
	}
	metadata := proto.CloneOf(r.GetMetadata())
	delete(metadata.Annotations, key)
	return &resourcepb.Resource{Metadata: metadata, Spec: r.GetSpec()}
}

func denied(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{state.ErrDenied}, args...)...)
}

// target is the resource that a write is about.
func target(current, wanted *resourcepb.Resource) *resourcepb.Resource {
	if wanted != nil {
		return wanted
	}
	return current
}
