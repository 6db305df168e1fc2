package storage

import (
	"context"
	"fmt"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Frozen returns next without writes to the durable namespaces: they fail with state.ErrFrozen and why. People get it on a node whose
// state cannot be used: what they wrote would be gone with the next boot. Requests still work, or nobody could reset or reboot the node.
func Frozen(next state.State, why string) state.State { return frozen{next, why} }

type frozen struct {
	state.State
	why string
}

func (f frozen) check(namespace string) error {
	if !Durable(namespace) {
		return nil
	}
	return fmt.Errorf("%w: %s", state.ErrFrozen, f.why)
}

func (f frozen) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := f.check(r.GetMetadata().GetNamespace()); err != nil {
		return nil, err
	}
	return f.State.Create(ctx, r, o)
}

func (f frozen) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := f.check(r.GetMetadata().GetNamespace()); err != nil {
		return nil, err
	}
	return f.State.Update(ctx, r, o)
}

func (f frozen) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if err := f.check(p.Namespace); err != nil {
		return err
	}
	return f.State.Destroy(ctx, p, o)
}

func (f frozen) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	if err := f.check(p.Namespace); err != nil {
		return nil, err
	}
	return f.State.Teardown(ctx, p, o)
}
