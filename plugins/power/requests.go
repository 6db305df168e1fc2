package power

import (
	"context"
	"fmt"
	"log"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/sdk"
)

type request = sdk.Resource[*powerpb.ShutdownRequest]

// Reasons of a status.
const (
	reasonAccepted   = "Accepted"
	reasonWaiting    = "Waiting"
	reasonDraining   = "Draining"
	reasonRefused    = "Refused"
	reasonSuperseded = "Superseded"
)

// requests decides what becomes of each request. Its fields are used by reconcile only.
type requests struct {
	clock clock
	alarm *alarm.Alarm

	began      bool
	requests   sightings
	inhibitors sightings
}

// reconcile acts on the oldest request that nothing is in the way of, unless one has been acted on already: the node goes down once. What
// was acted on stays so whatever becomes of the request; the status that says so is not written again.
func (q *requests) reconcile(ctx context.Context, s *sdk.State) error {
	acted, err := tidy(ctx, s)
	if err != nil {
		return err
	}
	now := q.clock.Now()
	all := slices.DeleteFunc(sdk.List[*powerpb.ShutdownRequest](s, requestType), request.TearingDown)
	slices.SortStableFunc(all, func(a, b request) int {
		return a.GetCreated().AsTime().Compare(b.GetCreated().AsTime())
	})
	q.look(s, all, now)
	held, next, err := q.hold(ctx, s, acted == "" && q.open(all), now)
	if err != nil {
		return err
	}
	for _, r := range all {
		if q.requests[r.GetId()].refused {
			continue // and stays so
		}
		switch acted {
		case "":
			v, err := q.judge(ctx, s, r, held, now)
			if err != nil {
				return err
			}
			if v.reason == reasonDraining {
				acted = r.GetId()
			}
			next = earliest(next, v.next)
		case r.GetId():
		default:
			v := verdict{reason: reasonSuperseded}
			if err := q.write(ctx, s, r, v, fmt.Sprintf("the node is going down for ShutdownRequest %q", acted)); err != nil {
				return err
			}
		}
	}
	q.alarm.Ring(next)
	return nil
}

// tidy removes the statuses of requests that are gone, and returns the request that was acted on.
func tidy(ctx context.Context, s *sdk.State) (acted string, err error) {
	for _, st := range sdk.List[*powerpb.ShutdownStatus](s, statusType) {
		_, wanted := sdk.Get[*powerpb.ShutdownRequest](s, requestType, st.GetId())
		switch {
		case st.Spec.GetReason() == reasonDraining:
			acted = st.GetId()
		case !wanted:
			if err := s.Delete(ctx, statusType, st.GetId()); err != nil {
				return "", err
			}
		}
	}
	return acted, nil
}

// look notes what is new. A request that waits does so from when it was seen first, however often it is written again. What an earlier
// process has begun goes on where it was.
func (q *requests) look(s *sdk.State, all []request, now time.Time) {
	before := q.requests
	q.requests = look(before, all, now)
	for id, seen := range q.requests {
		if was, ok := before[id]; ok && was.created.Equal(seen.created) && !was.refused {
			seen.at = was.at
			q.requests[id] = seen
		}
	}
	if q.began {
		return
	}
	q.began = true
	for _, r := range all {
		st, ok := sdk.Get[*powerpb.ShutdownStatus](s, statusType, r.GetId())
		if ok && st.Spec.GetObservedVersion() == r.GetVersion() {
			seen := q.requests[r.GetId()]
			seen.at, seen.refused = st.Spec.GetSince().AsTime(), st.Spec.GetReason() == reasonRefused
			q.requests[r.GetId()] = seen
		}
	}
}

// open reports whether anything may still become of one of the requests.
func (q *requests) open(all []request) bool {
	return slices.ContainsFunc(all, func(r request) bool { return !q.requests[r.GetId()].refused })
}

// judge finds out what becomes of a request, and writes it.
func (q *requests) judge(ctx context.Context, s *sdk.State, r request, all []hold, now time.Time) (verdict, error) {
	seen := q.requests[r.GetId()]
	v := decide(r.Spec, seen.at, all, now)
	if v.reason != reasonDraining {
		if err := q.write(ctx, s, r, v, words(r.Spec)+v.words()); err != nil {
			return v, err
		}
		seen.refused = v.reason == reasonRefused
		q.requests[r.GetId()] = seen
		return v, nil
	}
	if err := q.write(ctx, s, r, verdict{reason: reasonAccepted}, "accepted"); err != nil {
		return v, err
	}
	return v, q.write(ctx, s, r, v, words(r.Spec))
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

// write writes the status of a request, and says on the console why the node does not go down.
func (q *requests) write(ctx context.Context, s *sdk.State, r request, v verdict, message string) error {
	before, _ := sdk.Get[*powerpb.ShutdownStatus](s, statusType, r.GetId())
	err := s.Write(ctx, statusType, r.GetId(), &powerpb.ShutdownStatus{
		ObservedVersion: r.GetVersion(),
		Ready:           v.reason == reasonDraining,
		Reason:          v.reason,
		Message:         message,
		Action:          r.Spec.GetAction(),
		Holders:         v.holders,
		Since:           timestamppb.New(q.requests[r.GetId()].at),
		Until:           timestamp(v.until),
	}, r.Metadata)
	if err == nil && len(v.holders) > 0 && before.Spec.GetMessage() != message {
		log.Print(message)
	}
	return err
}

// timestamp of no time is none.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
