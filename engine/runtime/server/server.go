// Package server serves the State API over gRPC.
//
// It turns requests into calls of a state.State and errors into status codes; what a caller may do is decided by the State that its
// connection gets. The runtime registers one Server on the network listener and on each plugin's socket:
//
//	g := grpc.NewServer(append(server.Options(), credentials)...)
//	server.New(stateOfConnection).Register(g)
//
// Nothing but the State service is registered; reflection in particular is not served. Every error carries a google.rpc.ErrorInfo
// with the domain "cosi.dev" and a reason, since several reasons share a code; what is wrong with a resource also comes as
// google.rpc.BadRequest, one violation a field.
package server

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// DryRun is the gRPC metadata that makes a write do everything but commit, with the value "true".
const DryRun = "cosi-dry-run"

// Server is the State service.
type Server struct {
	resourcepb.UnimplementedStateServer
	states  func(context.Context) (state.State, error)
	encoder *encoder
}

// New returns a Server. It calls states for each request: the state that the caller of the request sees, or why there is none for it.
func New(states func(context.Context) (state.State, error)) *Server {
	return &Server{states: states, encoder: newEncoder()}
}

// Register adds s to a grpc.Server that was made with Options.
func (s *Server) Register(r grpc.ServiceRegistrar) { resourcepb.RegisterStateServer(r, s) }

// Get returns one resource.
func (s *Server) Get(ctx context.Context, q *resourcepb.GetRequest) (*resourcepb.GetResponse, error) {
	st, err := s.states(ctx)
	if err != nil {
		return nil, Status(err)
	}
	r, err := st.Get(ctx, pointer(q))
	if err != nil {
		return nil, Status(err)
	}
	return &resourcepb.GetResponse{Resource: r}, nil
}

// List streams the resources of a kind.
func (s *Server) List(q *resourcepb.ListRequest, stream grpc.ServerStreamingServer[resourcepb.ListResponse]) error {
	ctx := stream.Context()
	st, err := s.states(ctx)
	if err != nil {
		return Status(err)
	}
	kind := state.Kind{Namespace: q.GetNamespace(), Type: q.GetType()}
	query := state.Query{Labels: q.GetOptions().GetLabelQuery(), IDRegexp: q.GetOptions().GetIdQuery().GetRegexp()}
	resources, err := st.List(ctx, kind, query)
	if err != nil {
		return Status(err)
	}
	for _, r := range resources {
		data, err := r.Answer()
		if err != nil {
			return Status(err)
		}
		if err := stream.SendMsg(newListed(data)); err != nil {
			return err
		}
	}
	return nil
}

// Create stores a resource.
func (s *Server) Create(ctx context.Context, q *resourcepb.CreateRequest) (*resourcepb.CreateResponse, error) {
	st, o, err := s.writer(ctx, q.GetOptions().GetOwner())
	if err != nil {
		return nil, Status(err)
	}
	if q.GetResource().GetMetadata() == nil {
		return nil, Status(fmt.Errorf("%w: a resource needs metadata", state.ErrInvalid))
	}
	r, err := st.Create(ctx, q.GetResource(), o)
	if err != nil {
		return nil, Status(err)
	}
	return &resourcepb.CreateResponse{Resource: r}, nil
}

// Update replaces a resource.
func (s *Server) Update(ctx context.Context, q *resourcepb.UpdateRequest) (*resourcepb.UpdateResponse, error) {
	st, o, err := s.writer(ctx, q.GetOptions().GetOwner())
	if err != nil {
		return nil, Status(err)
	}
	if q.GetNewResource().GetMetadata() == nil {
		return nil, Status(fmt.Errorf("%w: a resource needs metadata", state.ErrInvalid))
	}
	if options := q.GetOptions(); options != nil && options.ExpectedPhase != nil {
		o.Phase = options.GetExpectedPhase()
		if o.Phase != state.PhaseRunning && o.Phase != state.PhaseTearingDown {
			return nil, Status(fmt.Errorf("%w: expected_phase: %q is not a phase (running or tearingDown)", state.ErrInvalid, o.Phase))
		}
	}
	r, err := st.Update(ctx, q.GetNewResource(), o)
	if err != nil {
		return nil, Status(err)
	}
	return &resourcepb.UpdateResponse{Resource: r}, nil
}

// Destroy removes a resource.
func (s *Server) Destroy(ctx context.Context, q *resourcepb.DestroyRequest) (*resourcepb.DestroyResponse, error) {
	st, o, err := s.writer(ctx, q.GetOptions().GetOwner())
	if err != nil {
		return nil, Status(err)
	}
	if err := st.Destroy(ctx, pointer(q), o); err != nil {
		return nil, Status(err)
	}
	return &resourcepb.DestroyResponse{}, nil
}

// Teardown moves a resource to the phase tearingDown.
func (s *Server) Teardown(ctx context.Context, q *resourcepb.TeardownRequest) (*resourcepb.TeardownResponse, error) {
	st, o, err := s.writer(ctx, q.GetOptions().GetOwner())
	if err != nil {
		return nil, Status(err)
	}
	r, err := st.Teardown(ctx, pointer(q), o)
	if err != nil {
		return nil, Status(err)
	}
	return &resourcepb.TeardownResponse{DestroyReady: len(r.GetMetadata().GetFinalizers()) == 0}, nil
}

// writer returns the caller's state and the options of a write.
func (s *Server) writer(ctx context.Context, owner string) (state.State, state.WriteOptions, error) {
	o := state.WriteOptions{Owner: owner}
	switch values := metadata.ValueFromIncomingContext(ctx, DryRun); {
	case len(values) == 0 || len(values) == 1 && values[0] == "false":
	case len(values) == 1 && values[0] == "true":
		o.DryRun = true
	default: // whoever wrote this did not mean a write that counts
		return nil, o, fmt.Errorf("%w: metadata %s: %q is neither true nor false", state.ErrInvalid, DryRun, values)
	}
	st, err := s.states(ctx)
	return st, o, err
}

// named is a request for one resource.
type named interface {
	GetNamespace() string
	GetType() string
	GetId() string
}

func pointer(q named) state.Pointer {
	return state.Pointer{Kind: state.Kind{Namespace: q.GetNamespace(), Type: q.GetType()}, ID: q.GetId()}
}
