package power

import (
	"context"
	"fmt"
	"slices"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

type request = sdk.Resource[*powerpb.ShutdownRequest]

// Reasons of a status.
const (
	reasonAccepted   = "Accepted"
	reasonDraining   = "Draining"
	reasonSuperseded = "Superseded"
)

// reconcileRequests acts on the oldest request, unless one has been acted on already: the node goes down once. What was acted on
// stays so whatever becomes of the request; the status that says so is not written again.
func reconcileRequests(ctx context.Context, s *sdk.State) error {
	acted := ""
	for _, st := range sdk.List[*powerpb.ShutdownStatus](s, statusType) {
		_, wanted := sdk.Get[*powerpb.ShutdownRequest](s, requestType, st.GetId())
		switch {
		case st.Spec.GetReason() == reasonDraining:
			acted = st.GetId()
		case !wanted:
			if err := s.Delete(ctx, statusType, st.GetId()); err != nil {
				return err
			}
		}
	}
	requests := slices.DeleteFunc(sdk.List[*powerpb.ShutdownRequest](s, requestType), request.TearingDown)
	slices.SortStableFunc(requests, func(a, b request) int {
		return a.GetCreated().AsTime().Compare(b.GetCreated().AsTime())
	})
	for _, r := range requests {
		switch acted {
		case "":
			if err := act(ctx, s, r); err != nil {
				return err
			}
			acted = r.GetId()
		case r.GetId():
		default:
			if err := write(ctx, s, r, reasonSuperseded, fmt.Sprintf("the node is going down for ShutdownRequest %q", acted)); err != nil {
				return err
			}
		}
	}
	return nil
}

func act(ctx context.Context, s *sdk.State, r request) error {
	if err := write(ctx, s, r, reasonAccepted, "accepted"); err != nil {
		return err
	}
	return write(ctx, s, r, reasonDraining, words(r.Spec))
}

// words is what the console says: "reboot: kernel update".
func words(r *powerpb.ShutdownRequest) string {
	text := "power-off"
	if r.GetAction() == powerpb.ShutdownRequest_REBOOT {
		text = "reboot"
	}
	if r.GetReason() != "" {
		text += ": " + r.GetReason()
	}
	return text
}

func write(ctx context.Context, s *sdk.State, r request, reason, message string) error {
	return s.Write(ctx, statusType, r.GetId(), &powerpb.ShutdownStatus{
		ObservedVersion: r.GetVersion(),
		Ready:           reason == reasonDraining,
		Reason:          reason,
		Message:         message,
		Action:          r.Spec.GetAction(),
	}, r.Metadata)
}
