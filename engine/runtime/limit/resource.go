package limit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// Kinds that a Limiter reads and writes, and the id of the one resource of each.
var (
	Kind     = state.Kind{Namespace: "config", Type: "Limits.machine.cosi.dev"}
	Statuses = state.Kind{Namespace: "status", Type: "LimitsStatuses.machine.cosi.dev"}
)

// Node is the id of the Limits that count.
const Node = "node"

// Run keeps the values of the Limits resource in force, and says which are, until ctx is done.
func (l *Limiter) Run(ctx context.Context, s state.State, out output.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := l.Values() // a gRPC server keeps the limits that it was made with
	changed := make(chan struct{}, 1)
	view := observe.New(s, func() {
		select {
		case changed <- struct{}{}:
		default: // A wake-up is pending.
		}
	}, Kind)
	watched := make(chan error, 1)
	go func() { watched <- view.Run(ctx) }()
	for {
		select {
		case err := <-watched:
			return err
		case <-changed:
		}
		values, version := &machinepb.Limits{}, ""
		for _, r := range observe.Items[machinepb.Limits](view, Kind) {
			if r.GetId() == Node {
				values, version = r.Spec, r.GetVersion()
			}
		}
		l.Set(values)
		if err := out.Put(ctx, state.Pointer{Kind: Statuses, ID: Node}, l.status(version, started)); err != nil {
			cancel()
			<-watched
			return err
		}
	}
}

func (l *Limiter) status(version string, started *machinepb.Limits) *machinepb.LimitsStatus {
	s := &machinepb.LimitsStatus{ObservedVersion: version, Ready: true, Reason: "InForce", Limits: l.Values()}
	var pending []string
	if l.Values().GetMessageBytes() != started.GetMessageBytes() {
		pending = append(pending, "message_bytes counts when the runtime starts the next time")
	}
	if most := streams(started); l.Streams() > most {
		pending = append(pending, fmt.Sprintf("until the runtime starts the next time, one connection has %d streams at most", most))
	}
	if len(pending) > 0 {
		s.Reason, s.Message = "RestartPending", strings.Join(pending, "; ")
	}
	return s
}

// Read returns the values of the Limits resource, none if there is no such resource.
func Read(ctx context.Context, s state.State) (*machinepb.Limits, error) {
	values := &machinepb.Limits{}
	r, err := s.Get(ctx, state.Pointer{Kind: Kind, ID: Node})
	if errors.Is(err, state.ErrNotFound) {
		return values, nil
	}
	if err != nil {
		return nil, err
	}
	return values, proto.Unmarshal(r.GetSpec().GetProtoSpec(), values)
}
