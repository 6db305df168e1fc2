package statetest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// Client returns the State that a node serves on a connection. Its errors wrap the sentinels again.
func Client(conn grpc.ClientConnInterface) state.State {
	return &client{resourcepb.NewStateClient(conn), server.Error}
}

// Foreign returns the State that any server of the API serves. Its errors are the sentinels that have their code, since other servers
// do not say which of these it is.
func Foreign(api resourcepb.StateClient) state.State { return &client{api, byCode} }

// codeError is an error of a server that says no more than a code.
type codeError struct{ error }

func byCode(err error) error {
	if err == nil {
		return nil
	}
	return codeError{err}
}

func (e codeError) Unwrap() error { return e.error }

// Is reports whether target is an error with the same code.
func (e codeError) Is(target error) bool {
	code := status.Code(server.Status(target))
	return code != codes.Internal && code == status.Code(e.error)
}

type client struct {
	api     resourcepb.StateClient
	errorOf func(error) error
}

func (c *client) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	answer, err := c.api.Get(ctx, &resourcepb.GetRequest{Namespace: p.Namespace, Type: p.Type, Id: p.ID})
	return answer.GetResource(), c.errorOf(err)
}

func (c *client) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.api.List(ctx, &resourcepb.ListRequest{Namespace: k.Namespace, Type: k.Type, Options: &resourcepb.ListOptions{
		LabelQuery: q.Labels, IdQuery: idQuery(q),
	}})
	if err != nil {
		return nil, c.errorOf(err)
	}
	var all []encoded.Resource
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, c.errorOf(err)
		}
		all = append(all, encoded.Of(answer.GetResource()))
	}
}

func (c *client) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	answer, err := c.api.Create(dry(ctx, o), &resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{Owner: o.Owner}})
	return answer.GetResource(), c.errorOf(err)
}

func (c *client) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	options := &resourcepb.UpdateOptions{Owner: o.Owner}
	if o.Phase != "" {
		options.ExpectedPhase = &o.Phase
	}
	answer, err := c.api.Update(dry(ctx, o), &resourcepb.UpdateRequest{NewResource: r, Options: options})
	return answer.GetResource(), c.errorOf(err)
}

func (c *client) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	_, err := c.api.Destroy(dry(ctx, o), &resourcepb.DestroyRequest{
		Namespace: p.Namespace, Type: p.Type, Id: p.ID, Options: &resourcepb.DestroyOptions{Owner: o.Owner},
	})
	return c.errorOf(err)
}

// Teardown reads the resource afterwards: the wire only says whether it may be destroyed.
func (c *client) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	_, err := c.api.Teardown(dry(ctx, o), &resourcepb.TeardownRequest{
		Namespace: p.Namespace, Type: p.Type, Id: p.ID, Options: &resourcepb.TeardownOptions{Owner: o.Owner},
	})
	if err != nil {
		return nil, c.errorOf(err)
	}
	return c.Get(ctx, p)
}

// Watch returns when the server says that the watch is established.
func (c *client) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	stream, err := c.api.Watch(ctx, &resourcepb.WatchRequest{
		Namespace: w.Kind.Namespace, Type: w.Kind.Type, Id: w.ID, ApiVersion: 1,
		Options: &resourcepb.WatchOptions{
			BootstrapContents: w.BootstrapContents, TailEvents: int32(w.TailEvents), LabelQuery: w.Labels, IdQuery: idQuery(w.Query),
			StartFromBookmark: w.Bookmark, BootstrapBookmark: w.BootstrapBookmark,
		},
	})
	if err != nil {
		return nil, c.errorOf(err)
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, c.errorOf(err)
	}
	if len(first.GetEvent()) > 0 {
		return nil, errors.New("the first message of the watch holds events")
	}
	return &clientWatch{stream, c.errorOf}, nil
}

type clientWatch struct {
	stream  grpc.ServerStreamingClient[resourcepb.WatchResponse]
	errorOf func(error) error
}

// Next ends with the context of the watch, and at once with its own only if that is done before.
func (w *clientWatch) Next(ctx context.Context) ([]*state.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer, err := w.stream.Recv()
	if err != nil {
		return nil, w.errorOf(err)
	}
	return answer.GetEvent(), nil
}

func idQuery(q state.Query) *resourcepb.IDQuery {
	if q.IDRegexp == "" {
		return nil
	}
	return &resourcepb.IDQuery{Regexp: q.IDRegexp}
}

func dry(ctx context.Context, o state.WriteOptions) context.Context {
	if !o.DryRun {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, server.DryRun, "true")
}
