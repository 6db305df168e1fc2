package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// TeardownAndDestroy tears a resource down, waits until no finalizer is left, and destroys it. It also succeeds when somebody else
// has destroyed it meanwhile. When ctx is done first, the resource stays in tearingDown. A dry run only asks whether the teardown
// would be accepted.
func (s *Server) TeardownAndDestroy(ctx context.Context, q *resourcepb.TeardownAndDestroyRequest) (*resourcepb.TeardownAndDestroyResponse, error) {
	st, o, err := s.writer(ctx, q.GetOptions().GetOwner())
	if err != nil {
		return nil, Status(err)
	}
	if err := teardownAndDestroy(ctx, st, pointer(q), o); err != nil {
		return nil, Status(err)
	}
	return &resourcepb.TeardownAndDestroyResponse{}, nil
}

func teardownAndDestroy(ctx context.Context, st state.State, p state.Pointer, o state.WriteOptions) error {
	torn, err := st.Teardown(ctx, p, o)
	if err != nil || o.DryRun {
		return err
	}
	if len(torn.GetMetadata().GetFinalizers()) == 0 {
		if done, err := destroyed(st.Destroy(ctx, p, o)); done {
			return err
		}
	}
	for {
		err := destroyWhenReady(ctx, st, torn, o)
		if !errors.Is(err, state.ErrSlow) {
			return err
		}
	}
}

// destroyWhenReady watches a resource that is tearing down and destroys it when its finalizers are gone.
func destroyWhenReady(ctx context.Context, st state.State, torn *resourcepb.Resource, o state.WriteOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := state.PointerTo(torn)
	w, err := st.Watch(ctx, state.WatchRequest{Kind: p.Kind, ID: &p.ID})
	if err != nil {
		return err
	}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		last := events[len(events)-1]
		switch {
		case last.GetEventType() == resourcepb.EventType_ERRORED:
			continue // Next says why
		case gone(events, torn):
			return nil
		case len(last.GetResource().GetMetadata().GetFinalizers()) > 0:
			continue
		}
		if done, err := destroyed(st.Destroy(ctx, p, o)); done {
			return err
		}
	}
}

// gone reports that events tell the end of torn: it was destroyed, or what is there now was created later.
func gone(events []*state.Event, torn *resourcepb.Resource) bool {
	for _, e := range events {
		if e.GetEventType() == resourcepb.EventType_DESTROYED {
			return true
		}
		if e.GetEventType() == resourcepb.EventType_CREATED && !proto.Equal(e.GetResource().GetMetadata().GetCreated(), torn.GetMetadata().GetCreated()) {
			return true
		}
	}
	return false
}

// destroyed reads the outcome of a Destroy: it is over unless somebody has added a finalizer meanwhile.
func destroyed(err error) (done bool, _ error) {
	switch {
	case errors.Is(err, state.ErrNotFound):
		return true, nil
	case errors.Is(err, state.ErrFinalizers):
		return false, nil
	default:
		return true, err
	}
}
