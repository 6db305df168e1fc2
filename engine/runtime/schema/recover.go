package schema

import (
	"context"
	"maps"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// Recover takes over the definitions that a durable store has kept. Those that people wrote are kinds again; those that the runtime wrote
// for an image that is no longer there are removed. No rule is evaluated. A definition that is of no use any more, because the image now
// has a kind of that name or because it does not compile, is no error: its resources can be read and removed, and writes are told why not.
// Whoever puts a State in front of a durable store calls it once, before anything else.
func (s *State) Recover(ctx context.Context) error {
	s.defining.Lock()
	defer s.defining.Unlock()
	all, err := s.next.List(ctx, Definitions, state.Query{})
	if err != nil {
		return err
	}
	set, useless := s.kinds.Load(), map[string]*unusable{}
	s.earlier = map[string]*resourcepb.Resource{}
	for _, kept := range all {
		r := kept.Message()
		if r.GetMetadata().GetOwner() == output.Owner {
			s.outdated(ctx, r)
			s.earlier[r.GetMetadata().GetId()] = r
			continue
		}
		kind, err := parseDefinition(r, s.bounds)
		if err == nil {
			err = set.Add(kind)
		}
		if err != nil {
			useless[r.GetMetadata().GetId()] = newUnusable(r, err)
		}
		s.published.wrote(r.GetMetadata().GetId())
	}
	s.unusable.Store(&useless)
	return nil
}

// outdated removes a definition of the runtime's own if its kind is gone. One that somebody holds on to, or that a full disk cannot remove, is
// there until a later start: it is no reason not to serve the rest.
func (s *State) outdated(ctx context.Context, r *resourcepb.Resource) {
	for _, k := range s.kinds.Load().All() {
		if k.ID() == r.GetMetadata().GetId() {
			return
		}
	}
	_ = s.next.Destroy(ctx, state.PointerTo(r), state.WriteOptions{Owner: output.Owner})
}

// unusable is a definition that is kept and is of no use.
type unusable struct {
	definition *metapb.ResourceDefinitionSpec // without descriptors
	why        error
}

// newUnusable reads of a definition what can be read. If nothing can be, its resources are Sensitive.
func newUnusable(r *resourcepb.Resource, why error) *unusable {
	d := &metapb.ResourceDefinitionSpec{}
	if proto.Unmarshal(r.GetSpec().GetProtoSpec(), d) != nil {
		d = &metapb.ResourceDefinitionSpec{Sensitivity: metapb.ResourceDefinitionSpec_SENSITIVE}
	}
	d.Descriptors = nil
	return &unusable{d, why}
}

// kind is where its resources are.
func (u *unusable) kind() state.Kind {
	return state.Kind{Namespace: u.definition.GetDefaultNamespace(), Type: u.definition.GetResourceType()}
}

// unusableOf returns the definition of a type that is of no use, nil if it is not such a one.
func (s *State) unusableOf(typ string) *unusable {
	all := *s.unusable.Load()
	if len(all) == 0 {
		return nil
	}
	return all[strings.ToLower(typ)]
}

// replaced forgets that the definition with the id is of no use. s.defining is held.
func (s *State) replaced(id string) {
	rest := maps.Clone(*s.unusable.Load())
	delete(rest, id)
	s.unusable.Store(&rest)
}
