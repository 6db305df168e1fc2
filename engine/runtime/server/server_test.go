package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

const (
	namespace = "default"
	typ       = "Things.test.cosi.dev"
)

func thing(id string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: typ, Id: id},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte("content")},
	}
}

// node is a service with a client and the store behind it.
type node struct {
	resourcepb.StateClient
	store state.State
}

func newNode(t testing.TB) *node {
	store := newStore()
	return &node{resourcepb.NewStateClient(serve(t, store)), store}
}

func (n *node) create(t testing.TB, r *resourcepb.Resource) *resourcepb.Resource {
	t.Helper()
	answer, err := n.Create(t.Context(), &resourcepb.CreateRequest{Resource: r})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetResource()
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s = %v (%v); want %v", what, got, err, want)
	}
}

func TestEverySentinelHasItsCode(t *testing.T) {
	want := map[error]codes.Code{
		state.ErrNotFound: codes.NotFound, state.ErrExists: codes.AlreadyExists, state.ErrOwner: codes.PermissionDenied,
		state.ErrConflict: codes.FailedPrecondition, state.ErrPhase: codes.InvalidArgument, state.ErrFinalizers: codes.FailedPrecondition,
		state.ErrInvalid: codes.InvalidArgument, state.ErrDenied: codes.PermissionDenied, state.ErrUnimplemented: codes.Unimplemented,
		state.ErrBookmark: codes.FailedPrecondition, state.ErrSlow: codes.ResourceExhausted, state.ErrLimit: codes.ResourceExhausted,
		state.ErrFrozen: codes.FailedPrecondition, state.ErrNoSpace: codes.ResourceExhausted,
		context.Canceled: codes.Canceled, context.DeadlineExceeded: codes.DeadlineExceeded,
	}
	for _, sentinel := range append(state.Sentinels(), context.Canceled, context.DeadlineExceeded) {
		err := server.Status(fmt.Errorf("default/T/a: %w", sentinel))
		wantCode(t, sentinel.Error(), err, want[sentinel])
		if got := status.Convert(err).Message(); !strings.HasPrefix(got, "default/T/a: ") {
			t.Errorf("message %q; want the whole error", got)
		}
		if back := server.Error(err); !errors.Is(back, sentinel) {
			t.Errorf("Error(Status(%v)) = %v; want it to wrap the sentinel", sentinel, back)
		}
	}
}

func TestOtherErrorsAreInternalAndStatusesStay(t *testing.T) {
	wantCode(t, "an unknown error", server.Status(errors.New("disk on fire")), codes.Internal)
	wantCode(t, "a status", server.Status(status.Error(codes.Unavailable, "later")), codes.Unavailable)
	if err := server.Status(nil); err != nil {
		t.Errorf("Status(nil) = %v", err)
	}
	if err := server.Error(nil); err != nil {
		t.Errorf("Error(nil) = %v", err)
	}
	plain := status.Error(codes.NotFound, "from another server")
	if err := server.Error(plain); err != plain {
		t.Errorf("Error(%v) = %v; want it as it is", plain, err)
	}
}

func TestFieldErrorsBecomeViolations(t *testing.T) {
	fields := state.FieldErrors{{Path: "spec.flags[1]", Message: "unknown"}, {Path: "spec.target", Message: "is empty"}}
	err := server.Status(fmt.Errorf("default/T/a: %w", fields))
	wantCode(t, "field errors", err, codes.InvalidArgument)
	var got []string
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField()+": "+v.GetDescription())
			}
		}
	}
	if want := []string{"spec.flags[1]: unknown", "spec.target: is empty"}; !slices.Equal(got, want) {
		t.Errorf("violations %q; want %q", got, want)
	}
	var back state.FieldErrors
	if !errors.As(server.Error(err), &back) || len(back) != 2 || back[1].Path != "spec.target" {
		t.Errorf("Error() = %v; want both field errors", server.Error(err))
	}
}

func TestTheStateOfTheConnectionAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(server.Options()...)
	server.New(func(context.Context) (state.State, error) {
		return nil, fmt.Errorf("%w: no certificate", state.ErrDenied)
	}).Register(g)
	go g.Serve(listener)
	defer g.Stop()
	api := resourcepb.NewStateClient(dial(t, "unix:"+path, insecure.NewCredentials()))
	calls := map[string]func() error{
		"Get":      func() error { _, err := api.Get(t.Context(), &resourcepb.GetRequest{}); return err },
		"Create":   func() error { _, err := api.Create(t.Context(), &resourcepb.CreateRequest{}); return err },
		"Update":   func() error { _, err := api.Update(t.Context(), &resourcepb.UpdateRequest{}); return err },
		"Destroy":  func() error { _, err := api.Destroy(t.Context(), &resourcepb.DestroyRequest{}); return err },
		"Teardown": func() error { _, err := api.Teardown(t.Context(), &resourcepb.TeardownRequest{}); return err },
		"TeardownAndDestroy": func() error {
			_, err := api.TeardownAndDestroy(t.Context(), &resourcepb.TeardownAndDestroyRequest{})
			return err
		},
		"List": func() error {
			stream, err := api.List(t.Context(), &resourcepb.ListRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"Watch": func() error {
			stream, err := api.Watch(t.Context(), &resourcepb.WatchRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
	for name, call := range calls {
		wantCode(t, name, call(), codes.PermissionDenied)
	}
}

func TestOnlyTheStateServiceIsRegistered(t *testing.T) {
	g := grpc.NewServer(server.Options()...)
	server.New(nil).Register(g)
	info := g.GetServiceInfo()
	if _, ok := info["cosi.resource.State"]; !ok || len(info) != 1 {
		t.Errorf("services %v; want cosi.resource.State alone", info)
	}
}

func TestRequestsAboveTheLimitAreRefused(t *testing.T) {
	n := newNode(t)
	r := thing("a")
	r.Spec.ProtoSpec = make([]byte, server.MaxMessage)
	_, err := n.Create(t.Context(), &resourcepb.CreateRequest{Resource: r})
	wantCode(t, "Create", err, codes.ResourceExhausted)
}

func TestMalformedRequestsAreInvalid(t *testing.T) {
	n := newNode(t)
	n.create(t, thing("a"))
	_, err := n.Create(t.Context(), &resourcepb.CreateRequest{})
	wantCode(t, "Create of nothing", err, codes.InvalidArgument)
	_, err = n.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: &resourcepb.Resource{}})
	wantCode(t, "Update of nothing", err, codes.InvalidArgument)
	r := thing("a")
	r.Metadata.Version = "1"
	_, err = n.Update(t.Context(), &resourcepb.UpdateRequest{
		NewResource: r, Options: &resourcepb.UpdateOptions{ExpectedPhase: proto.String("walking")},
	})
	wantCode(t, "Update with an unknown expected phase", err, codes.InvalidArgument)
}

func TestAMisspeltDryRunWritesNothing(t *testing.T) {
	n := newNode(t)
	for value, want := range map[string]codes.Code{"yes": codes.InvalidArgument, "": codes.InvalidArgument, "true": codes.OK} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), server.DryRun, value)
		_, err := n.Create(ctx, &resourcepb.CreateRequest{Resource: thing("a")})
		wantCode(t, fmt.Sprintf("Create with %s: %q", server.DryRun, value), err, want)
	}
	_, err := n.Get(t.Context(), &resourcepb.GetRequest{Namespace: namespace, Type: typ, Id: "a"})
	wantCode(t, "Get", err, codes.NotFound)
	ctx := metadata.AppendToOutgoingContext(t.Context(), server.DryRun, "false")
	if _, err := n.Create(ctx, &resourcepb.CreateRequest{Resource: thing("a")}); err != nil {
		t.Fatal(err)
	}
}

func TestAbandonedListsEnd(t *testing.T) {
	n := newNode(t)
	n.create(t, thing("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := n.List(ctx, &resourcepb.ListRequest{Namespace: namespace, Type: typ})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last resource: %v; want EOF", err)
	}
}
