package doorbell

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/sdk"
)

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
