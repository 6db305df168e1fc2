package plugins

import (
	"context"
	"errors"
	"io"
	"time"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// session is a plugin's lease. Its fields after drains are guarded by the table's mu.
type session struct {
	name     string
	register *pluginpb.Register
	drains   chan *pluginpb.Drain // one at most is sent
	done     chan struct{}        // closed when the session is over or the plugin has drained

	ready    bool
	draining string // the reason
}

// describe fills in what the session says of the plugin.
func (s *session) describe(p *servicepb.PluginStatus) {
	p.Version, p.Controllers = s.register.GetVersion(), controllers(s.register.GetControllers())
	switch {
	case s.draining != "":
		p.State, p.Reason, p.Message = Draining, "Draining", s.draining
	case s.ready:
		p.State, p.Ready, p.Reason = Ready, true, "Ready"
	default:
		p.State, p.Reason, p.Message = Registered, "NotReconciled", "registered, has not reconciled yet"
	}
}

// service is cosi.plugin.v1alpha1.Plugin on one plugin's socket.
type service struct {
	pluginpb.UnimplementedPluginServer
	declaration *declaration.Declaration
	identity    *access.Plugin
	table       *Table
	registered  *pluginpb.Registered
}

// Session holds the lease until the plugin ends it, has drained, or is gone.
func (s *service) Session(stream grpc.BidiStreamingServer[pluginpb.SessionRequest, pluginpb.SessionResponse]) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	lease, err := s.newSession(first.GetRegister())
	if err != nil {
		return err
	}
	opened, err := s.table.open(ctx, lease.name, lease)
	if err != nil {
		return err
	}
	if !opened {
		return status.Errorf(codes.AlreadyExists, "plugin %s has a session already", lease.name)
	}
	defer s.end(ctx, lease)
	if err := s.narrow(lease.register); err != nil {
		return err
	}
	if err := stream.Send(&pluginpb.SessionResponse{Message: &pluginpb.SessionResponse_Registered{Registered: s.registered}}); err != nil {
		return err
	}
	return s.hold(stream, lease)
}

func (s *service) newSession(r *pluginpb.Register) (*session, error) {
	if r == nil {
		return nil, status.Error(codes.InvalidArgument, "the first message of a session must be register")
	}
	if r.GetName() != s.declaration.Name {
		return nil, status.Errorf(codes.PermissionDenied, "this socket is plugin %s's, not %q's", s.declaration.Name, r.GetName())
	}
	return &session{name: r.GetName(), register: r, drains: make(chan *pluginpb.Drain, 1), done: make(chan struct{})}, nil
}

// narrow leaves the plugin what its controllers name. One that registers no controller keeps all that it declared.
func (s *service) narrow(r *pluginpb.Register) error {
	if len(r.GetControllers()) == 0 {
		return nil
	}
	var rights access.Rights
	for _, c := range r.GetControllers() {
		for _, input := range c.GetInputs() {
			if input.GetFinalizers() && !s.declaration.Finalizes(input.GetType()) {
				return status.Errorf(codes.PermissionDenied, "plugin %s registers finalizers on %s, which its declaration does not have", s.declaration.Name, input.GetType())
			}
			rights.Inputs = append(rights.Inputs, input.GetType())
		}
		for _, output := range c.GetOutputs() {
			rights.Outputs = append(rights.Outputs, output.GetType())
		}
	}
	if err := s.identity.Narrow(rights); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

func (s *service) end(ctx context.Context, lease *session) {
	s.identity.Restore()
	close(lease.done)
	_ = s.table.close(ctx, lease.name, lease) // The store refuses nothing to its owner; there is nobody to tell.
}

// hold reads the plugin's messages in a goroutine of its own, which ends with the stream: returning ends that.
func (s *service) hold(stream grpc.BidiStreamingServer[pluginpb.SessionRequest, pluginpb.SessionResponse], lease *session) error {
	received := make(chan error, 1)
	go func() { received <- s.receive(stream, lease) }()
	for {
		select {
		case err := <-received:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case drain := <-lease.drains:
			if err := stream.Send(&pluginpb.SessionResponse{Message: &pluginpb.SessionResponse_Drain{Drain: drain}}); err != nil {
				return err
			}
		}
	}
}

func (s *service) receive(stream grpc.BidiStreamingServer[pluginpb.SessionRequest, pluginpb.SessionResponse], lease *session) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		switch message.GetMessage().(type) {
		case *pluginpb.SessionRequest_Ready:
			if err := s.table.change(stream.Context(), lease.name, func(*entry) { lease.ready = true }); err != nil {
				return err
			}
		case *pluginpb.SessionRequest_Drained:
			return nil
		default:
			return status.Error(codes.InvalidArgument, "a session goes on with ready or drained")
		}
	}
}

// Drain asks every plugin to let go of what it holds, those that were started last first, one after the other. It returns when all
// have drained or ended, or at the deadline, with the names of those that had not. None may use more than half of the time that is left.
// Each is reported to stopped when its turn is over, so that it is not started again.
func (t *Table) Drain(ctx context.Context, reason string, deadline time.Time, stopped func(name string)) (late []string) {
	for _, lease := range t.sessions() {
		until := time.Now().Add(time.Until(deadline) / 2)
		_ = t.change(ctx, lease.name, func(*entry) { lease.draining = reason }) // A status that is not written stops no shutdown.
		select {
		case lease.drains <- &pluginpb.Drain{Reason: reason, Deadline: timestamppb.New(until)}:
		default: // It was asked before.
		}
		select {
		case <-lease.done:
		case <-time.After(time.Until(until)):
			late = append(late, lease.name)
		case <-ctx.Done():
			return append(late, lease.name)
		}
		stopped(lease.name)
	}
	return late
}
