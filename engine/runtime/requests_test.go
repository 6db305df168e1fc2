package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// call is one of the service's methods, called with bytes that may be a request.
type call func(ctx context.Context, c resourcepb.StateClient, data []byte) error

func unary[Q, A any, P interface {
	*Q
	proto.Message
}](method func(resourcepb.StateClient, context.Context, P, ...grpc.CallOption) (A, error)) call {
	return func(ctx context.Context, c resourcepb.StateClient, data []byte) error {
		q := P(new(Q))
		if proto.Unmarshal(data, q) != nil {
			return nil
		}
		_, err := method(c, ctx, q)
		return err
	}
}

func list(ctx context.Context, c resourcepb.StateClient, data []byte) error {
	q := &resourcepb.ListRequest{}
	if proto.Unmarshal(data, q) != nil {
		return nil
	}
	stream, err := c.List(ctx, q)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// calls are all that answer by themselves; Watch has a fuzz test beside the server.
var calls = []call{
	unary(resourcepb.StateClient.Get), list, unary(resourcepb.StateClient.Create), unary(resourcepb.StateClient.Update),
	unary(resourcepb.StateClient.Destroy), unary(resourcepb.StateClient.Teardown), unary(resourcepb.StateClient.TeardownAndDestroy),
}

// documented are the codes that a client is told to expect.
var documented = []codes.Code{
	codes.OK, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition, codes.InvalidArgument,
	codes.Unimplemented, codes.ResourceExhausted,
}

func seeds(f *testing.F) {
	spec := &resourcepb.Spec{YamlSpec: "source: tmpfs\ntarget: /var/a\nfstype: tmpfs\nflags: [nodev]\n"}
	for _, typ := range []string{"MountPoints.storage.cosi.dev", "Things.example.org"} {
		m := &resourcepb.Metadata{Namespace: "config", Type: typ, Id: "a", Version: "1", Phase: "running", Finalizers: []string{"f"},
			Labels: map[string]string{"k": "1Ki"}, Annotations: map[string]string{"n": "v"}}
		if typ == "Things.example.org" {
			m.Namespace = "default"
		}
		r := &resourcepb.Resource{Metadata: m, Spec: spec}
		terms := []*resourcepb.LabelTerm{{Key: "k", Op: resourcepb.LabelTerm_LT_NUMERIC, Value: []string{"2Ki"}}, {Key: "k", Op: resourcepb.LabelTerm_EQUAL}}
		for n, q := range []proto.Message{
			&resourcepb.GetRequest{Namespace: m.Namespace, Type: typ, Id: "a"},
			&resourcepb.ListRequest{Namespace: m.Namespace, Type: typ, Options: &resourcepb.ListOptions{
				LabelQuery: []*resourcepb.LabelQuery{{Terms: terms}}, IdQuery: &resourcepb.IDQuery{Regexp: "^a+"},
			}},
			&resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{Owner: "o"}},
			&resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{ExpectedPhase: proto.String("running")}},
			&resourcepb.DestroyRequest{Namespace: m.Namespace, Type: typ, Id: "a"},
			&resourcepb.TeardownRequest{Namespace: m.Namespace, Type: typ, Id: "a"},
			&resourcepb.TeardownAndDestroyRequest{Namespace: m.Namespace, Type: typ, Id: "a"},
		} {
			data, err := proto.Marshal(q)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(n), data)
		}
	}
}

// FuzzRequests: no bytes that decode as a request bring a runtime down or hang it, limits, schemas and rules included, and each is
// answered with a documented code. What was taken stays, so that later requests meet it.
func FuzzRequests(f *testing.F) {
	seeds(f)
	path := filepath.Join(f.TempDir(), "x.sock")
	ctx, stop := context.WithCancel(f.Context())
	served := make(chan error, 1)
	go func() {
		limits := limit.New(nil)
		served <- serveStore(ctx, path, memory.New(memory.Options{Limits: history, Most: limits.ResourcesOfKind}), limits)
	}()
	f.Cleanup(func() { stop(); <-served })
	client := resourcepb.NewStateClient(dialUnix(f, path))
	if _, err := client.Get(ctx, &resourcepb.GetRequest{}, grpc.WaitForReady(true)); !slices.Contains(documented, status.Code(err)) {
		f.Fatal(err)
	}
	// TeardownAndDestroy waits for finalizers as long as its caller does.
	const wait, teardownAndDestroy = 50 * time.Millisecond, 6
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		method %= uint8(len(calls))
		patience := time.Minute
		if method == teardownAndDestroy {
			patience = wait
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := calls[method](ctx, client, data)
		code := status.Code(err)
		if code == codes.DeadlineExceeded && method == teardownAndDestroy {
			return
		}
		if !slices.Contains(documented, code) {
			t.Fatalf("method %d: code %v: %v", method, code, err)
		}
	})
}
