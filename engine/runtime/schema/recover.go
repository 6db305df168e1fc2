package schema

import (
	"context"
	"errors"
	"fmt"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
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
	set := s.kinds.Load()
	for _, r := range all {
		if r.GetMetadata().GetOwner() == output.Owner {
			if err := s.outdated(ctx, r); err != nil {
				return err
			}
			continue
		}
		kind, err := parseDefinition(r, s.bounds)
		if err == nil {
			err = set.Add(kind)
		}
		if err != nil {
			s.broken.Store(r.GetMetadata().GetId(), err)
			continue
		}
		s.published.wrote(kind.ID())
	}
	return nil
}

// outdated removes a definition of the runtime's own if its kind is gone.
func (s *State) outdated(ctx context.Context, r *resourcepb.Resource) error {
	for _, k := range s.kinds.Load().All() {
		if k.ID() == r.GetMetadata().GetId() {
			return nil
		}
	}
	err := s.next.Destroy(ctx, state.PointerTo(r), state.WriteOptions{Owner: output.Owner})
	if errors.Is(err, state.ErrFinalizers) {
		return nil // somebody holds on to it: it is there until they let go
	}
	return err
}

// unusable returns why a type that is defined cannot be written, nil if it is not such a one.
func (s *State) unusable(typ string) error {
	if err, ok := s.broken.Load(strings.ToLower(typ)); ok {
		return fmt.Errorf("%w: type %q: its definition is of no use: %w", state.ErrInvalid, typ, err.(error))
	}
	return nil
}
