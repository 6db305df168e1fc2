// Package schema knows every kind and lets nothing else in: a resource that is written has a known type, lives in its kind's namespace,
// has a content that parses without a rest, and keeps the rules of its message. Readers get the content in both forms.
//
// It stands between access and router. Kinds come from this repository, from the declarations of plugins, and from people who create
// ResourceDefinitions with descriptors. All of them can be read as ResourceDefinitions, so that a client needs nothing of ours.
package schema

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// Kinds of the namespace meta.
var (
	Definitions = state.Kind{Namespace: "meta", Type: "ResourceDefinitions.meta.cosi.dev"}
	Namespaces  = state.Kind{Namespace: "meta", Type: "Namespaces.meta.cosi.dev"}
)

// State checks what is written to next.
type State struct {
	next  state.State
	open  string // the namespace where anything goes
	rules rules
	// bounds hold for definitions that people bring.
	bounds Bounds
	checks map[string]Check // by type

	published *publisher
	steady    steady
	looked    sync.Map // by *kinds.Kind: see foreign

	defining sync.Mutex // held while kinds change
	kinds    atomic.Pointer[kinds.Set]
	// unusable are definitions that are kept and are of no use, by their ids. The map does not change.
	unusable atomic.Pointer[map[string]*unusable]
	// earlier are the definitions that the image before has published of kinds that are still there, by their ids, until Settle has seen them.
	earlier map[string]*resourcepb.Resource
}

// New returns a State that knows the kinds of set and takes set over. In the namespace open, unless it is empty, resources of any type are let
// through unseen.
func New(next state.State, set *kinds.Set, open string) *State {
	s := &State{next: next, open: open, bounds: DefaultBounds, published: newPublisher(next)}
	s.kinds.Store(set)
	s.unusable.Store(&map[string]*unusable{})
	return s
}

// Check judges the content of a resource in protobuf form, by what no rule of its message can say. It fails with FieldErrors.
type Check func(content []byte) error

// Check adds c for a kind, before s is used.
func (s *State) Check(k state.Kind, c Check) {
	if s.checks == nil {
		s.checks = map[string]Check{}
	}
	s.checks[k.Type] = c
}

// Definition returns the definition of a type without its descriptors, or nil. One that is of no use says all the same whether its resources
// are Sensitive, even if the image has another kind of that name now.
func (s *State) Definition(typ string) *metapb.ResourceDefinitionSpec {
	kept := s.unusableOf(typ)
	if kept != nil && kept.definition.GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE {
		return kept.definition
	}
	if k := s.kinds.Load().ByType(typ); k != nil {
		return k.Definition
	}
	if kept != nil {
		return kept.definition
	}
	return nil
}

// Get returns a resource.
func (s *State) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	if err := s.look(ctx, p.Kind, p.ID); err != nil {
		return nil, err
	}
	r, err := s.next.Get(ctx, p)
	return s.wording(ctx, p.Type).complete(r), err
}

// List returns the resources of a kind.
func (s *State) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	if err := s.look(ctx, k, ""); err != nil {
		return nil, err
	}
	all, err := s.next.List(ctx, k, q)
	words := s.wording(ctx, k.Type)
	if words.kind == nil {
		return all, err
	}
	for i, r := range all {
		m := r.Message()
		if whole := words.complete(m); whole != m {
			all[i] = encoded.Of(whole)
		}
	}
	return all, err
}

// Watch watches. Events carry what was written, in the words of this image. An unknown type, or one in a wrong namespace, is ErrInvalid: stores keep a history of what is
// watched, and rights are told by definitions.
func (s *State) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	if err := s.watchable(w.Kind); err != nil {
		return nil, err
	}
	id := ""
	if w.ID != nil {
		id = *w.ID
	}
	if err := s.look(ctx, w.Kind, id); err != nil {
		return nil, err
	}
	watch, err := s.next.Watch(ctx, w)
	if words := s.wording(ctx, w.Kind.Type); err == nil && words.foreign {
		watch = worded{watch, words}
	}
	return watch, err
}

// Create checks r: ErrInvalid for an unknown type or a wrong namespace, FieldErrors for a bad content. A definition takes effect with it.
func (s *State) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	defer s.writing(r.GetMetadata().GetType())()
	return s.write(ctx, r, o, s.next.Create)
}

// Update checks r as Create does. A content that stays as it is was let in before and is not judged again: that is what a change of
// finalizers costs, and it must be possible after rules have become stricter.
func (s *State) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	defer s.writing(r.GetMetadata().GetType())()
	if !s.isOpen(r.GetMetadata().GetNamespace()) {
		if old, err := s.next.Get(ctx, state.PointerTo(r)); err == nil && keepsContent(old, r) {
			spec := s.wording(ctx, r.GetMetadata().GetType()).complete(old).GetSpec()
			return s.next.Update(ctx, &resourcepb.Resource{Metadata: r.GetMetadata(), Spec: spec}, o)
		}
	}
	return s.write(ctx, r, o, s.next.Update)
}

// keepsContent reports whether r, read at old's version, has the content of old.
func keepsContent(old, r *resourcepb.Resource) bool {
	return old.GetMetadata().GetVersion() == r.GetMetadata().GetVersion() && len(r.GetSpec().GetProtoSpec()) > 0 &&
		bytes.Equal(old.GetSpec().GetProtoSpec(), r.GetSpec().GetProtoSpec())
}

type write func(context.Context, *resourcepb.Resource, state.WriteOptions) (*resourcepb.Resource, error)

func (s *State) write(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions, next write) (*resourcepb.Resource, error) {
	if s.isOpen(r.GetMetadata().GetNamespace()) {
		return next(ctx, r, o)
	}
	kind, err := s.kindOf(r.GetMetadata())
	if err != nil {
		return nil, err
	}
	spec, err := s.content(kind, r.GetSpec())
	if err != nil {
		return nil, err
	}
	r = &resourcepb.Resource{Metadata: r.GetMetadata(), Spec: spec}
	if kind.Type() == Definitions.Type {
		return s.define(ctx, r, o, next)
	}
	return next(ctx, r, o)
}

// Destroy removes a resource; with a definition goes its kind, unless resources of it are left: ErrInvalid.
func (s *State) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if p.Kind == Definitions {
		return s.undefine(ctx, p, o)
	}
	return s.next.Destroy(ctx, p, o)
}

// Teardown moves a resource to the phase tearingDown.
func (s *State) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := s.publish(ctx, p.Kind, p.ID); err != nil {
		return nil, err
	}
	return s.next.Teardown(ctx, p, o)
}

func (s *State) isOpen(namespace string) bool { return s.open != "" && namespace == s.open }

func (s *State) watchable(k state.Kind) error {
	if s.isOpen(k.Namespace) || k.Namespace == "" || k.Type == "" { // the store says what is missing
		return nil
	}
	if kept := s.unusableOf(k.Type); kept != nil && k == kept.kind() {
		return nil
	}
	_, err := s.kindOf(&resourcepb.Metadata{Namespace: k.Namespace, Type: k.Type})
	return err
}

// kindOf returns the kind that m names.
func (s *State) kindOf(m *resourcepb.Metadata) (*kinds.Kind, error) {
	set := s.kinds.Load()
	k := set.ByType(m.GetType())
	if k == nil {
		if kept := s.unusableOf(m.GetType()); kept != nil {
			return nil, fmt.Errorf("%w: type %q: its definition is of no use: %w", state.ErrInvalid, m.GetType(), kept.why)
		}
		alias, err := set.Lookup(m.GetType())
		if err == nil {
			return nil, fmt.Errorf("%w: type %q: the full name is needed here: %s", state.ErrInvalid, m.GetType(), alias.Type())
		}
		return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
	}
	if m.GetNamespace() != k.Namespace() {
		return nil, fmt.Errorf("%w: %s lives in the namespace %q, not in %q", state.ErrInvalid, k.Type(), k.Namespace(), m.GetNamespace())
	}
	return k, nil
}

// content returns spec in both forms. When the writer sent both, the protobuf form counts.
func (s *State) content(kind *kinds.Kind, spec *resourcepb.Spec) (*resourcepb.Spec, error) {
	data := spec.GetProtoSpec()
	if len(data) == 0 && spec.GetYamlSpec() != "" {
		decoded, problems := kind.Decode([]byte(spec.GetYamlSpec()))
		if len(problems) > 0 {
			return nil, fieldErrors(problems)
		}
		data = decoded
	}
	message, err := parse(kind, data)
	if err != nil {
		return nil, err
	}
	if err := s.rules.check(message, kind.Sensitive()); err != nil {
		return nil, err
	}
	if check := s.checks[kind.Type()]; check != nil {
		if err := check(data); err != nil {
			return nil, err
		}
	}
	text, err := kinds.EncodeMessage(message.ProtoReflect())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind.Type(), err)
	}
	return &resourcepb.Spec{ProtoSpec: data, YamlSpec: text}, nil
}

func fieldErrors(problems []kinds.Problem) error {
	var all state.FieldErrors
	for _, p := range problems {
		path, message := p.Field, p.Message
		if path == "" {
			path = "spec"
			if p.Line > 0 {
				message = fmt.Sprintf("line %d: %s", p.Line, message)
			}
		}
		all = append(all, &state.FieldError{Path: path, Message: message})
	}
	return all
}
