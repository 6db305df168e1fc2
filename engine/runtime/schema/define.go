package schema

import (
	"context"
	"errors"
	"fmt"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// define writes a definition and adds its kind, or replaces the one that it had before. All that a definition costs, it costs here: its
// rules are compiled and their cost is estimated before it is written.
func (s *State) define(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions, next write) (*resourcepb.Resource, error) {
	if err := s.publish(ctx, Definitions, r.GetMetadata().GetId()); err != nil {
		return nil, err
	}
	kind, err := parseDefinition(r, s.bounds)
	if err != nil {
		return nil, err
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	set, err := without(s.kinds.Load(), kind.ID())
	if err != nil {
		return nil, err
	}
	if old := byID(s.kinds.Load(), kind.ID()); old != nil && old.Type() != kind.Type() {
		return nil, &state.FieldError{Path: "spec.resource_type", Message: fmt.Sprintf("is %q, and the kind that is there is %q: remove it first", kind.Type(), old.Type())}
	}
	if err := s.bounds.check(kind, len(set.All())); err != nil {
		return nil, err
	}
	if err := set.Add(kind); err != nil {
		return nil, &state.FieldError{Path: "spec", Message: err.Error()}
	}
	if err := s.rules.compile(kind.Message); err != nil {
		return nil, &state.FieldError{Path: "spec.descriptors", Message: err.Error()}
	}
	defer s.defined(kind.Type())()
	old := s.kinds.Load().ByType(kind.Type())
	if old != nil {
		if err := s.replaceable(ctx, old, kind); err != nil {
			return nil, err
		}
	}
	written, err := next(ctx, r, o)
	if err == nil && !o.DryRun {
		s.published.wrote(kind.ID())
		s.kinds.Store(set)
		s.looked.Delete(old)
		s.replaced(kind.ID())
	}
	return written, err
}

func parseDefinition(r *resourcepb.Resource, b Bounds) (*kinds.Kind, error) {
	definition := &metapb.ResourceDefinitionSpec{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), definition); err != nil {
		return nil, err
	}
	if n := len(definition.GetDescriptors()); n > b.Descriptors {
		return nil, &state.FieldError{Path: "spec.descriptors", Message: fmt.Sprintf("are %d bytes, and %d are allowed", n, b.Descriptors)}
	}
	kind, err := descriptors.Kind(definition)
	if err != nil {
		return nil, &state.FieldError{Path: "spec.descriptors", Message: err.Error()}
	}
	if id := r.GetMetadata().GetId(); id != kind.ID() {
		return nil, fmt.Errorf("%w: the id of the definition of %s is %q, not %q", state.ErrInvalid, kind.Type(), kind.ID(), id)
	}
	if _, known := NamespaceDescriptions()[kind.Namespace()]; !known {
		return nil, &state.FieldError{Path: "spec.default_namespace", Message: fmt.Sprintf("%q is not a namespace of this node", kind.Namespace())}
	}
	return kind, nil
}

// without returns a copy of set without the kind that id defines.
func without(set *kinds.Set, id string) (*kinds.Set, error) {
	var rest []*kinds.Kind
	for _, k := range set.All() {
		if k.ID() != id {
			rest = append(rest, k)
		}
	}
	return kinds.NewSet(rest...)
}

// byID returns the kind that the definition with the id defines, or nil.
func byID(set *kinds.Set, id string) *kinds.Kind {
	k, err := set.Lookup(id)
	if err != nil || k.ID() != id {
		return nil
	}
	return k
}

func (s *State) undefine(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if err := s.publish(ctx, p.Kind, p.ID); err != nil {
		return err
	}
	s.defining.Lock()
	defer s.defining.Unlock()
	definition, err := s.definition(ctx, p)
	if err != nil {
		return err
	}
	defer s.defined(definition.GetResourceType())()
	if err := s.unused(ctx, definition); err != nil {
		return err
	}
	if err := s.next.Destroy(ctx, p, o); err != nil || o.DryRun {
		return err
	}
	if (*s.unusable.Load())[p.ID] != nil { // a kind of that name is the image's
		s.replaced(p.ID)
		s.published.gone(p.ID)
		return nil
	}
	set, err := without(s.kinds.Load(), p.ID)
	if err == nil {
		s.kinds.Store(set)
	}
	return err
}

// definition reads a definition, an empty one if there is none, which Destroy then says, or if nobody can read it: then nothing can have
// been written by it.
func (s *State) definition(ctx context.Context, p state.Pointer) (*metapb.ResourceDefinitionSpec, error) {
	r, err := s.next.Get(ctx, p)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return nil, err
	}
	definition := &metapb.ResourceDefinitionSpec{}
	if proto.Unmarshal(r.GetSpec().GetProtoSpec(), definition) != nil {
		return &metapb.ResourceDefinitionSpec{}, nil
	}
	return definition, nil
}

// unused fails with ErrInvalid while there are resources of the kind of a definition.
func (s *State) unused(ctx context.Context, definition *metapb.ResourceDefinitionSpec) error {
	left, err := s.next.List(ctx, state.Kind{Namespace: definition.GetDefaultNamespace(), Type: definition.GetResourceType()}, state.Query{})
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%w: %d resources of %s are left", state.ErrInvalid, len(left), definition.GetResourceType())
	}
	return nil
}
