package statetest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// WireRule is one thing that a server does on the wire and that no State shows.
type WireRule struct {
	Name     string
	Extended bool

	check func(*wire)
}

// Check checks the rule against a server that holds nothing of the kind.
func (r WireRule) Check(ctx context.Context, t T, api resourcepb.StateClient, k state.Kind) {
	r.check(&wire{t, api, ctx, k})
}

// WireRules returns the rules.
func WireRules() []WireRule { return onTheWire }

// RunWire checks every rule against a server of its own.
func RunWire(t *testing.T, empty func(*testing.T) grpc.ClientConnInterface) {
	for _, r := range onTheWire {
		t.Run(r.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.Check(ctx, t, resourcepb.NewStateClient(empty(t)), kind)
		})
	}
}

// wire is a server under test.
type wire struct {
	T
	api  resourcepb.StateClient
	ctx  context.Context
	kind state.Kind
}

func (w *wire) thing(id string, finalizers ...string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id, Phase: state.PhaseRunning, Finalizers: finalizers},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte("content of " + id)},
	}
}

func (w *wire) create(id string, finalizers ...string) *resourcepb.Resource {
	w.Helper()
	answer, err := w.api.Create(w.ctx, &resourcepb.CreateRequest{Resource: w.thing(id, finalizers...)})
	if err != nil {
		w.Fatalf("Create(%s) = %v", id, err)
	}
	return answer.GetResource()
}

func (w *wire) code(what string, err error, want codes.Code) {
	w.Helper()
	if got := status.Code(err); got != want {
		w.Errorf("%s = %v (%v); want %v", what, got, err, want)
	}
}

// get returns the code of a Get and the resource.
func (w *wire) get(id string) (*resourcepb.Resource, codes.Code) {
	answer, err := w.api.Get(w.ctx, &resourcepb.GetRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id})
	return answer.GetResource(), status.Code(err)
}

// messages opens a watch and returns its first n messages.
func (w *wire) messages(n int, version int32, o *resourcepb.WatchOptions) [][]*resourcepb.Event {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	stream, err := w.api.Watch(ctx, &resourcepb.WatchRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, ApiVersion: version, Options: o})
	if err != nil {
		w.Fatalf("Watch = %v", err)
	}
	var all [][]*resourcepb.Event
	for range n {
		answer, err := stream.Recv()
		if err != nil {
			w.Fatalf("message %d of the watch = %v", len(all)+1, err)
		}
		all = append(all, answer.GetEvent())
	}
	return all
}

// types are the types of the events of a message.
func types(events []*resourcepb.Event) (s string) {
	for _, e := range events {
		s += e.GetEventType().String() + " "
	}
	return s
}

func (w *wire) equal(what string, got, want any) {
	w.Helper()
	if got != want {
		w.Errorf("%s = %v; want %v", what, got, want)
	}
}

func (w *wire) teardownAndDestroy(ctx context.Context, id string) error {
	_, err := w.api.TeardownAndDestroy(ctx, &resourcepb.TeardownAndDestroyRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id})
	return err
}

// destroySoon destroys a resource when nobody holds it, and returns what came of it.
func (w *wire) destroySoon(id string) codes.Code {
	for {
		_, err := w.api.Destroy(w.ctx, &resourcepb.DestroyRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id})
		if code := status.Code(err); code != codes.FailedPrecondition {
			return code
		}
	}
}

// keeping is a codec that keeps the last answer as it came.
type keeping struct {
	encoding.CodecV2
	answer []byte
}

func (k *keeping) Unmarshal(data mem.BufferSlice, v any) error {
	k.answer = data.Materialize()
	return k.CodecV2.Unmarshal(data, v)
}

// untilTearingDown waits until somebody has torn a resource down, and returns it.
func (w *wire) untilTearingDown(id string) *resourcepb.Resource {
	w.Helper()
	for ; ; time.Sleep(5 * time.Millisecond) {
		r, code := w.get(id)
		if code != codes.OK {
			w.Fatalf("Get(%s) = %v while it should be tearing down", id, code)
		}
		if r.GetMetadata().GetPhase() == state.PhaseTearingDown {
			return r
		}
	}
}

var onTheWire = []WireRule{
	{Name: "The first message of a watch is empty", check: func(w *wire) {
		w.create("a")
		all := w.messages(2, 1, &resourcepb.WatchOptions{BootstrapContents: true})
		w.equal("events of the first message", len(all[0]), 0)
		w.equal("events of the second", types(all[1]), "CREATED ")
	}},
	{Name: "A watch that cannot be set up fails in the place of the first message", check: func(w *wire) {
		id := "a"
		for _, c := range []struct {
			request *resourcepb.WatchRequest
			code    codes.Code
		}{
			{&resourcepb.WatchRequest{Id: &id, Options: &resourcepb.WatchOptions{BootstrapContents: true}}, codes.Unimplemented},
			{&resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{StartFromBookmark: []byte("?")}}, codes.FailedPrecondition},
			{&resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{IdQuery: &resourcepb.IDQuery{Regexp: "("}}}, codes.InvalidArgument},
		} {
			c.request.Namespace, c.request.Type, c.request.ApiVersion = w.kind.Namespace, w.kind.Type, 1
			stream, err := w.api.Watch(w.ctx, c.request)
			if err == nil {
				_, err = stream.Recv()
			}
			w.code(c.request.String(), err, c.code)
		}
	}},
	{Name: "api_version 0 hides BOOTSTRAPPED", check: func(w *wire) {
		w.create("a")
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		stream, err := w.api.Watch(ctx, &resourcepb.WatchRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Options: &resourcepb.WatchOptions{BootstrapContents: true}})
		if err != nil {
			w.Fatalf("Watch = %v", err)
		}
		var seen string
		for made := false; seen != "CREATED CREATED "; {
			answer, err := stream.Recv()
			if err != nil {
				w.Fatalf("Recv = %v after %s", err, seen)
			}
			if seen += types(answer.GetEvent()); seen == "CREATED " && !made {
				made = true
				w.create("b")
			} else if len(seen) > len("CREATED CREATED ") {
				w.Fatalf("events %s; want those of two resources", seen)
			}
		}
	}},
	{Name: "Without aggregation a message holds one event, with it all that are ready", check: func(w *wire) {
		for _, id := range []string{"a", "b", "c"} {
			w.create(id)
		}
		for _, events := range w.messages(5, 1, &resourcepb.WatchOptions{BootstrapContents: true})[1:] {
			w.equal("events of a message", len(events), 1)
		}
		all := w.messages(2, 1, &resourcepb.WatchOptions{BootstrapContents: true, Aggregated: true})
		w.equal("the aggregated message", types(all[1]), "CREATED CREATED CREATED BOOTSTRAPPED ")
	}},
	{Name: "Teardown says whether a finalizer is left", check: func(w *wire) {
		w.create("free")
		w.create("held", "holder")
		for id, ready := range map[string]bool{"free": true, "held": false} {
			for range 2 {
				answer, err := w.api.Teardown(w.ctx, &resourcepb.TeardownRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id})
				w.code("Teardown", err, codes.OK)
				w.equal("destroy_ready of "+id, answer.GetDestroyReady(), ready)
			}
		}
	}},
	{Name: "TeardownAndDestroy of what nobody holds is at once, and of nothing NOT_FOUND", check: func(w *wire) {
		w.create("a")
		w.code("TeardownAndDestroy", w.teardownAndDestroy(w.ctx, "a"), codes.OK)
		_, code := w.get("a")
		w.equal("Get afterwards", code, codes.NotFound)
		w.code("TeardownAndDestroy of nothing", w.teardownAndDestroy(w.ctx, "a"), codes.NotFound)
	}},
	{Name: "TeardownAndDestroy wants the owner exactly", check: func(w *wire) {
		w.create("a")
		_, err := w.api.TeardownAndDestroy(w.ctx, &resourcepb.TeardownAndDestroyRequest{
			Namespace: w.kind.Namespace, Type: w.kind.Type, Id: "a", Options: &resourcepb.TeardownAndDestroyOptions{Owner: "mount"},
		})
		w.code("TeardownAndDestroy", err, codes.PermissionDenied)
		r, _ := w.get("a")
		w.equal("phase", r.GetMetadata().GetPhase(), state.PhaseRunning)
	}},
	{Name: "TeardownAndDestroy succeeds when somebody else destroys", check: func(w *wire) {
		// Until that was faster than the call that waits, which on a server with one processor never is.
		other := codes.NotFound
		for tries := 0; other == codes.NotFound && tries < 200; tries++ {
			w.create("a", "holder")
			done, destroyed := make(chan error, 1), make(chan codes.Code, 1)
			go func() { done <- w.teardownAndDestroy(w.ctx, "a") }()
			r := w.untilTearingDown("a")
			go func() { destroyed <- w.destroySoon("a") }()
			r.Metadata.Finalizers = nil
			_, err := w.api.Update(w.ctx, &resourcepb.UpdateRequest{NewResource: r})
			w.code("Update", err, codes.OK)
			w.code("TeardownAndDestroy", <-done, codes.OK)
			if other = <-destroyed; other != codes.OK && other != codes.NotFound {
				w.Errorf("Destroy by somebody else = %v; want OK, or NotFound if it came too late", other)
			}
		}
	}},
	{Name: "TeardownAndDestroy waits until the finalizers are gone", check: func(w *wire) {
		w.create("a", "holder")
		done := make(chan error, 1)
		go func() { done <- w.teardownAndDestroy(w.ctx, "a") }()
		r := w.untilTearingDown("a")
		select {
		case err := <-done:
			w.Fatalf("TeardownAndDestroy = %v while a finalizer is left", err)
		default:
		}
		r.Metadata.Finalizers = nil
		phase := state.PhaseTearingDown
		_, err := w.api.Update(w.ctx, &resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{ExpectedPhase: &phase}})
		w.code("Update", err, codes.OK)
		w.code("TeardownAndDestroy", <-done, codes.OK)
		_, code := w.get("a")
		w.equal("Get afterwards", code, codes.NotFound)
	}},
	{Name: "TeardownAndDestroy ends when the caller cancels it, and leaves the resource tearing down", Extended: true, check: func(w *wire) {
		w.create("a", "holder")
		ctx, cancel := context.WithCancel(w.ctx)
		done := make(chan error, 1)
		go func() { done <- w.teardownAndDestroy(ctx, "a") }()
		r := w.untilTearingDown("a")
		cancel()
		w.code("TeardownAndDestroy", <-done, codes.Canceled)
		r.Metadata.Finalizers = nil
		_, err := w.api.Update(w.ctx, &resourcepb.UpdateRequest{NewResource: r})
		w.code("Update", err, codes.OK)
		w.untilTearingDown("a") // it is still there
	}},
	{Name: "TeardownAndDestroy ends with the caller's deadline and leaves the resource tearing down", Extended: true, check: func(w *wire) {
		w.create("a", "holder")
		ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
		defer cancel()
		w.code("TeardownAndDestroy", w.teardownAndDestroy(ctx, "a"), codes.DeadlineExceeded)
		w.untilTearingDown("a")
	}},
	{Name: "A dry run is asked for by metadata, and nothing but true and false will do", Extended: true, check: func(w *wire) {
		ctx := metadata.AppendToOutgoingContext(w.ctx, server.DryRun, "yes")
		_, err := w.api.Create(ctx, &resourcepb.CreateRequest{Resource: w.thing("a")})
		w.code("Create", err, codes.InvalidArgument)
		ctx = metadata.AppendToOutgoingContext(w.ctx, server.DryRun, "true")
		_, err = w.api.Create(ctx, &resourcepb.CreateRequest{Resource: w.thing("a")})
		w.code("Create", err, codes.OK)
		_, code := w.get("a")
		w.equal("Get afterwards", code, codes.NotFound)
	}},
	{Name: "Each refusal has its code", check: func(w *wire) {
		a := w.create("a", "holder")
		stale := proto.CloneOf(a)
		stale.Metadata.Version = "9"
		tearingDown, regexp := state.PhaseTearingDown, &resourcepb.IDQuery{Regexp: "("}
		unknown := []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{{Key: "x", Op: 99, Value: []string{"1"}}}}}
		create := func(r *resourcepb.Resource) error {
			_, err := w.api.Create(w.ctx, &resourcepb.CreateRequest{Resource: r})
			return err
		}
		update := func(r *resourcepb.Resource, o *resourcepb.UpdateOptions) error {
			_, err := w.api.Update(w.ctx, &resourcepb.UpdateRequest{NewResource: r, Options: o})
			return err
		}
		destroy := func(id, owner string) error {
			_, err := w.api.Destroy(w.ctx, &resourcepb.DestroyRequest{
				Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id, Options: &resourcepb.DestroyOptions{Owner: owner},
			})
			return err
		}
		teardown := func(id, owner string) error {
			_, err := w.api.Teardown(w.ctx, &resourcepb.TeardownRequest{
				Namespace: w.kind.Namespace, Type: w.kind.Type, Id: id, Options: &resourcepb.TeardownOptions{Owner: owner},
			})
			return err
		}
		list := func(o *resourcepb.ListOptions) error {
			stream, err := w.api.List(w.ctx, &resourcepb.ListRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Options: o})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
		_, nothing := w.get("none")
		for _, c := range []struct {
			what string
			err  error
			want codes.Code
		}{
			{"Get of nothing", status.Error(nothing, ""), codes.NotFound},
			{"Create again", create(w.thing("a")), codes.AlreadyExists},
			{"Update of nothing", update(w.thing("none"), nil), codes.NotFound},
			{"Update by another", update(a, &resourcepb.UpdateOptions{Owner: "mount"}), codes.PermissionDenied},
			{"Update of another version", update(stale, nil), codes.FailedPrecondition},
			{"Update in another phase", update(a, &resourcepb.UpdateOptions{ExpectedPhase: &tearingDown}), codes.InvalidArgument},
			{"Destroy of nothing", destroy("none", ""), codes.NotFound},
			{"Destroy by another", destroy("a", "mount"), codes.PermissionDenied},
			{"Destroy with a finalizer", destroy("a", ""), codes.FailedPrecondition},
			{"Teardown of nothing", teardown("none", ""), codes.NotFound},
			{"Teardown by another", teardown("a", "mount"), codes.PermissionDenied},
			{"List by an operation that there is not", list(&resourcepb.ListOptions{LabelQuery: unknown}), codes.Unimplemented},
			{"List by a bad regexp", list(&resourcepb.ListOptions{IdQuery: regexp}), codes.InvalidArgument},
		} {
			w.code(c.what, c.err, c.want)
		}
	}},
	{Name: "An empty proto_spec is left off the wire", check: func(w *wire) {
		r := w.thing("a")
		r.Spec = &resourcepb.Spec{ProtoSpec: []byte{}}
		_, err := w.api.Create(w.ctx, &resourcepb.CreateRequest{Resource: r})
		w.code("Create", err, codes.OK)
		raw := &keeping{CodecV2: encoding.GetCodecV2("proto")}
		_, err = w.api.Get(w.ctx, &resourcepb.GetRequest{Namespace: w.kind.Namespace, Type: w.kind.Type, Id: "a"}, grpc.ForceCodecV2(raw))
		w.code("Get", err, codes.OK)
		if empty := append(protowire.AppendTag(nil, 1, protowire.BytesType), 0); bytes.HasSuffix(raw.answer, empty) {
			w.Errorf("Get = %x; want no empty proto_spec at its end", raw.answer)
		}
	}},
	{Name: "A request without a resource or with an unknown phase is INVALID_ARGUMENT", Extended: true, check: func(w *wire) {
		_, err := w.api.Create(w.ctx, &resourcepb.CreateRequest{})
		w.code("Create", err, codes.InvalidArgument)
		_, err = w.api.Update(w.ctx, &resourcepb.UpdateRequest{})
		w.code("Update", err, codes.InvalidArgument)
		phase := "walking"
		_, err = w.api.Update(w.ctx, &resourcepb.UpdateRequest{NewResource: w.create("a"), Options: &resourcepb.UpdateOptions{ExpectedPhase: &phase}})
		w.code("Update", err, codes.InvalidArgument)
	}},
}
