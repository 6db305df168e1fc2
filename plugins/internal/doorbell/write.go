package doorbell

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/sdk"
)

// Tell writes what was added to a ring of events, and then what the generator of that name says of itself.
func Tell[N any, E Event](ctx context.Context, s *sdk.State, name string, bell *Bell[N], ring *Ring[E]) error {
	bell.Coalesced(ring.Merge())
	if err := ring.Write(ctx, s); err != nil {
		return err
	}
	if status := bell.Status(); status != nil {
		return s.Write(ctx, StatusType, name, status, nil)
	}
	return nil
}

// WriteAll makes the resources of an output these, and no others.
func WriteAll(ctx context.Context, s *sdk.State, typ string, all map[string]proto.Message) error {
	for id, spec := range all {
		if err := s.Write(ctx, typ, id, spec, nil); err != nil {
			return err
		}
	}
	for _, id := range s.Outputs(typ) {
		if all[id] == nil {
			if err := s.Delete(ctx, typ, id); err != nil {
				return err
			}
		}
	}
	return nil
}
