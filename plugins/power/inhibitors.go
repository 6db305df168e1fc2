package power

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

type inhibitor = sdk.Resource[*powerpb.ShutdownInhibitor]

// hold returns what all inhibitors hold, and when the first lease is over. It writes their statuses. With exact it asks for the inhibitors of
// this moment: what was written before a request counts.
func (q *requests) hold(ctx context.Context, s *sdk.State, exact bool, now time.Time) (all []hold, next time.Time, err error) {
	inhibitors, err := list[*powerpb.ShutdownInhibitor](ctx, s, inhibitorType, exact)
	if err != nil {
		return nil, next, err
	}
	plugins, err := list[*servicepb.PluginStatus](ctx, s, pluginType, exact)
	if err != nil {
		return nil, next, err
	}
	ready := map[string]bool{}
	for _, p := range plugins {
		ready[p.GetId()] = p.Spec.GetReady()
	}
	q.inhibitors = look(q.inhibitors, inhibitors, now)
	for _, i := range inhibitors {
		h := holdOf(i, q.inhibitors[i.GetId()].at, ready[i.GetOwner()], now)
		if h.state == reasonHeld {
			next = earliest(next, h.expires)
		}
		all = append(all, h)
		status := &powerpb.ShutdownInhibitorStatus{
			ObservedVersion: i.GetVersion(), Ready: h.state == reasonHeld, Reason: h.state, Message: h.words(), Holder: h.holder, Expires: timestamp(h.expires),
		}
		if err := s.Write(ctx, inhibitorStatusType, h.id, status, i.Metadata); err != nil {
			return nil, next, err
		}
	}
	for _, id := range s.Outputs(inhibitorStatusType) {
		if _, wanted := q.inhibitors[id]; !wanted {
			if err := s.Delete(ctx, inhibitorStatusType, id); err != nil {
				return nil, next, err
			}
		}
	}
	return all, next, nil
}

func list[T proto.Message](ctx context.Context, s *sdk.State, typ string, exact bool) ([]sdk.Resource[T], error) {
	if exact {
		return sdk.Fetch[T](ctx, s, typ)
	}
	return sdk.List[T](s, typ), nil
}

func (h hold) words() string {
	switch h.state {
	case reasonExpired:
		return "it was not written again before its lease was over"
	case reasonHolderGone:
		return "the plugin " + h.holder + " is not ready"
	case reasonLetGo:
		return "it is being deleted"
	}
	return ""
}
