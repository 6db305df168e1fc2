package kills

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// compare holds what there is against what the writers know, and lets the watchers catch up to it.
func (r *run) compare(ctx context.Context, c state) error {
	versions := map[string]map[string]string{} // by type and id
	there := map[string]map[string]*resourcepb.Resource{}
	for _, w := range r.writers {
		if there[w.typ] == nil {
			all, err := list(ctx, c, w.namespace, w.typ)
			if err != nil {
				return fmt.Errorf("list %s: %w", w.typ, err)
			}
			there[w.typ], versions[w.typ] = all, map[string]string{}
			for id, resource := range all {
				versions[w.typ][id] = resource.GetMetadata().GetVersion()
			}
		}
		if err := w.compare(there[w.typ]); err != nil {
			return err
		}
	}
	for typ, left := range there {
		for id := range left {
			return fmt.Errorf("%s/%s is there, and nobody wrote it", typ, id)
		}
	}
	for _, w := range r.watchers {
		if err := w.watch(ctx, c, versions[w.typ]); err != nil {
			return err
		}
	}
	return nil
}

// list waits until the runtime serves.
func list(ctx context.Context, c state, namespace, typ string) (map[string]*resourcepb.Resource, error) {
	stream, err := c.List(ctx, &resourcepb.ListRequest{Namespace: namespace, Type: typ}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	all := map[string]*resourcepb.Resource{}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		all[answer.GetResource().GetMetadata().GetId()] = answer.GetResource()
	}
}
