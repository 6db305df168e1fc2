package server_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// watch starts a watch of the kind and takes its first message.
func (n *node) watch(t testing.TB, q *resourcepb.WatchRequest) grpc.ServerStreamingClient[resourcepb.WatchResponse] {
	t.Helper()
	q.Namespace, q.Type = namespace, typ
	stream, err := n.Watch(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(first.GetEvent()) != 0 {
		t.Fatalf("first message %v; want it empty", first)
	}
	return stream
}

// message receives one message and lists its events.
func message(t testing.TB, stream grpc.ServerStreamingClient[resourcepb.WatchResponse]) string {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range m.GetEvent() {
		events = append(events, strings.TrimSpace(e.GetEventType().String()+" "+e.GetResource().GetMetadata().GetId()))
	}
	return strings.Join(events, ", ")
}

func TestAggregatedPacksContentsAndBootstrappedTogether(t *testing.T) {
	n := newNode(t)
	n.create(t, thing("a"))
	n.create(t, thing("b"))
	options := &resourcepb.WatchOptions{BootstrapContents: true, Aggregated: true}
	if got, want := message(t, n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1, Options: options})), "CREATED a, CREATED b, BOOTSTRAPPED"; got != want {
		t.Errorf("message %q; want %q", got, want)
	}
	options.Aggregated = false
	stream := n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1, Options: options})
	for _, want := range []string{"CREATED a", "CREATED b", "BOOTSTRAPPED"} {
		if got := message(t, stream); got != want {
			t.Errorf("message %q; want %q", got, want)
		}
	}
}

func TestAggregatedMessagesFitTheLimitOfClients(t *testing.T) {
	n := newNode(t)
	const count = 10
	for i := range count {
		r := thing(fmt.Sprint(i))
		r.Spec.ProtoSpec = make([]byte, 1<<20)
		n.create(t, r)
	}
	stream := n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1, Options: &resourcepb.WatchOptions{BootstrapContents: true, Aggregated: true}})
	seen, messages := 0, 0
	for seen <= count { // BOOTSTRAPPED too
		seen += len(strings.Split(message(t, stream), ", "))
		messages++
	}
	if messages > count/2+1 {
		t.Errorf("%d messages for %d MiB; want several resources in each", messages, count)
	}
}

func TestAPIVersion0HidesBootstrappedAndErrored(t *testing.T) {
	n := newNode(t)
	n.create(t, thing("a"))
	stream := n.watch(t, &resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{BootstrapContents: true}})
	if got := message(t, stream); got != "CREATED a" {
		t.Errorf("message %q; want the contents", got)
	}
	n.create(t, thing("b"))
	if got := message(t, stream); got != "CREATED b" {
		t.Errorf("message %q; want the live event, with no BOOTSTRAPPED before it", got)
	}
	for version, want := range map[int32]bool{0: false, 1: true} {
		errored, err := n.fallBehind(t, fmt.Sprint("slow", version), version)
		if errored != want {
			t.Errorf("api_version %d: ERRORED seen %v; want %v", version, errored, want)
		}
		wantCode(t, "the end of the stream", err, codes.ResourceExhausted)
	}
}

// fallBehind lets a watch fall behind and reads it to its end.
func (n *node) fallBehind(t *testing.T, id string, version int32) (errored bool, _ error) {
	stream := n.watch(t, &resourcepb.WatchRequest{ApiVersion: version})
	r := thing(id)
	r.Spec.ProtoSpec = bytes.Repeat([]byte("x"), 64<<10)
	r = n.create(t, r)
	for range 300 {
		var err error
		if r, err = n.store.Update(t.Context(), r, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return errored, err
		}
		for _, e := range m.GetEvent() {
			errored = errored || e.GetEventType() == resourcepb.EventType_ERRORED
		}
	}
}

func TestAnErrorOfTheSetUpComesInPlaceOfTheFirstMessage(t *testing.T) {
	n := newNode(t)
	for name, c := range map[string]struct {
		request *resourcepb.WatchRequest
		want    codes.Code
	}{
		"contents of one":  {&resourcepb.WatchRequest{Id: proto.String("a"), Options: &resourcepb.WatchOptions{BootstrapContents: true}}, codes.Unimplemented},
		"an empty id":      {&resourcepb.WatchRequest{Id: proto.String("")}, codes.InvalidArgument},
		"an empty mark":    {&resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{StartFromBookmark: []byte{}}}, codes.FailedPrecondition},
		"a negative tail":  {&resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{TailEvents: -1}}, codes.InvalidArgument},
		"a bad expression": {&resourcepb.WatchRequest{Options: &resourcepb.WatchOptions{IdQuery: &resourcepb.IDQuery{Regexp: "("}}}, codes.InvalidArgument},
	} {
		c.request.Namespace, c.request.Type = namespace, typ
		stream, err := n.Watch(t.Context(), c.request)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantCode(t, name, err, c.want)
	}
}

func TestEventsCrossTheWireWhole(t *testing.T) {
	n := newNode(t)
	live, err := n.store.Watch(t.Context(), state.WatchRequest{Kind: state.Kind{Namespace: namespace, Type: typ}})
	if err != nil {
		t.Fatal(err)
	}
	streams := []grpc.ServerStreamingClient[resourcepb.WatchResponse]{
		n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1}), n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1}),
	}
	r := thing("a")
	r.Metadata.Labels = map[string]string{"k": "v"}
	r.Metadata.Finalizers = []string{"f"}
	if _, err := n.store.Update(t.Context(), n.create(t, r), state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for seen := 0; seen < 2; {
		events, err := live.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range events {
			seen++
			for _, stream := range streams {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if len(m.GetEvent()) != 1 || !proto.Equal(m.GetEvent()[0], want) {
					t.Errorf("message %v; want the event %v", m, want)
				}
			}
		}
	}
}

// FuzzWatchRequest: no bytes that decode as a request bring the service down, and each is answered with a documented code.
func FuzzWatchRequest(f *testing.F) {
	for _, q := range []*resourcepb.WatchRequest{
		{Namespace: namespace, Type: typ, ApiVersion: 1, Options: &resourcepb.WatchOptions{BootstrapContents: true}},
		{Namespace: namespace, Type: typ, Id: proto.String("a")},
		{Namespace: namespace, Type: typ, Options: &resourcepb.WatchOptions{
			LabelQuery: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{{Key: "k", Op: resourcepb.LabelTerm_LT_NUMERIC, Value: []string{"1Ki"}}}}},
			IdQuery:    &resourcepb.IDQuery{Regexp: "^a"}, TailEvents: 3,
		}},
		{Namespace: namespace, Type: typ, Options: &resourcepb.WatchOptions{StartFromBookmark: make([]byte, 16)}},
	} {
		data, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	n := newNode(f)
	n.create(f, thing("a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		q := &resourcepb.WatchRequest{}
		if proto.Unmarshal(data, q) != nil {
			return
		}
		stream, err := n.Watch(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		switch code := status.Code(err); code {
		case codes.OK, codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		case codes.ResourceExhausted: // longer than a message may be
			if len(data) < server.MaxMessage {
				t.Fatal(err)
			}
		default:
			t.Fatalf("code %v: %v", code, err)
		}
	})
}
