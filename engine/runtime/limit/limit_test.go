package limit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
)

var kind = state.Kind{Namespace: "config", Type: "Things.example.org"}

func thing(id string, size int) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: kind.Namespace, Type: kind.Type, Id: id, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: make([]byte, size)},
	}
}

func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (!errors.Is(err, state.ErrLimit) || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v; want %q", what, err, want)
	}
}

func TestAResourceIsBounded(t *testing.T) {
	s := limit.New(&machinepb.Limits{ResourceBytes: 1000}).State(memory.New(memory.Options{}), "ann")
	_, err := s.Create(t.Context(), thing("a", 900), state.WriteOptions{})
	check(t, "create", err, "")
	_, err = s.Create(t.Context(), thing("b", 1000), state.WriteOptions{})
	check(t, "create", err, "a resource may have 1000")
	large := thing("a", 1000)
	large.Metadata.Version = "1"
	_, err = s.Update(t.Context(), large, state.WriteOptions{})
	check(t, "update", err, "config/Things.example.org/a is 10")
}

func TestResourcesOfAKindAreBounded(t *testing.T) {
	l := limit.New(&machinepb.Limits{ResourcesOfKind: 2})
	durable, err := log.Open(t.TempDir(), log.Options{Most: l.ResourcesOfKind})
	if err != nil {
		t.Fatal(err)
	}
	defer durable.Close()
	for name, s := range map[string]state.State{"memory": memory.New(memory.Options{Most: l.ResourcesOfKind}), "log": durable} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Create(t.Context(), thing(id, 1), state.WriteOptions{})
			check(t, name, err, "")
		}
		for _, dry := range []bool{true, false} {
			_, err := s.Create(t.Context(), thing("c", 1), state.WriteOptions{DryRun: dry})
			check(t, name, err, "there are 2 resources of config/Things.example.org, and 2 are allowed")
		}
		other := thing("a", 1)
		other.Metadata.Type = "Others.example.org"
		_, err := s.Create(t.Context(), other, state.WriteOptions{})
		check(t, name+", another kind", err, "")
		if err := s.Destroy(t.Context(), state.Pointer{Kind: kind, ID: "a"}, state.WriteOptions{}); err != nil {
			t.Error(err)
		}
		_, err = s.Create(t.Context(), thing("c", 1), state.WriteOptions{})
		check(t, name+", after a destroy", err, "")
	}
}

func TestWatchesOfAClientAreBoundedAndEndWithTheirContext(t *testing.T) {
	l, store := limit.New(&machinepb.Limits{Watches: 2}), memory.New(memory.Options{})
	ann, again, bob := l.State(store, "ann"), l.State(store, "ann"), l.State(store, "bob")
	ctx, cancel := context.WithCancel(t.Context())
	for _, s := range []state.State{ann, again} {
		_, err := s.Watch(ctx, state.WatchRequest{Kind: kind})
		check(t, "watch", err, "")
	}
	_, err := again.Watch(t.Context(), state.WatchRequest{Kind: kind})
	check(t, "a third", err, "3 watches at once, and a client may have 2")
	_, err = bob.Watch(t.Context(), state.WatchRequest{Kind: kind})
	check(t, "another client", err, "")
	cancel()
	for range 2 { // each ends in a goroutine of its own
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err = ann.Watch(t.Context(), state.WatchRequest{Kind: kind}); err == nil || time.Now().After(end) {
				break
			}
		}
		check(t, "after two ended", err, "")
	}
	// One that does not begin does not count.
	carol := l.State(store, "carol")
	for range 5 {
		if _, err := carol.Watch(t.Context(), state.WatchRequest{}); !errors.Is(err, state.ErrInvalid) {
			t.Fatal(err)
		}
	}
	for range 2 {
		_, err = carol.Watch(t.Context(), state.WatchRequest{Kind: kind})
		check(t, "after five that did not begin", err, "")
	}
}

// slow says that it was asked, and answers when it may.
type slow struct {
	state.State
	asked, may chan struct{}
}

func (s slow) Get(context.Context, state.Pointer) (*resourcepb.Resource, error) {
	s.asked <- struct{}{}
	<-s.may
	return nil, state.ErrNotFound
}

func TestCallsAtOnceAreBounded(t *testing.T) {
	l, asked, may := limit.New(&machinepb.Limits{Calls: 2}), make(chan struct{}), make(chan struct{})
	s := l.State(slow{memory.New(memory.Options{}), asked, may}, "ann")
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.List(ctx, kind, state.Query{}); err != nil { // it is in progress until its context is done
		t.Fatal(err)
	}
	answer := make(chan error)
	go func() {
		_, err := s.Get(t.Context(), state.Pointer{Kind: kind, ID: "a"})
		answer <- err
	}()
	<-asked
	_, err := s.List(t.Context(), kind, state.Query{})
	check(t, "list", err, "3 calls at once, and a client may make 2")
	close(may)
	if err := <-answer; !errors.Is(err, state.ErrNotFound) {
		t.Error(err)
	}
	cancel()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err = s.List(t.Context(), kind, state.Query{}); err == nil || time.Now().After(end) {
			break
		}
	}
	check(t, "list afterwards", err, "")
}

func TestTheResourceIsInForceAtOnce(t *testing.T) {
	store := memory.New(memory.Options{})
	l := limit.New(nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, store, output.New(store)) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	status := func() *machinepb.LimitsStatus {
		s := &machinepb.LimitsStatus{}
		if r, err := store.Get(ctx, state.Pointer{Kind: limit.Statuses, ID: limit.Node}); err == nil {
			proto.Unmarshal(r.GetSpec().GetProtoSpec(), s)
		}
		return s
	}
	until := func(what string, is func(*machinepb.LimitsStatus) bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !is(status()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %v", what, status())
			}
		}
	}
	until("the defaults", func(s *machinepb.LimitsStatus) bool { return s.GetReady() && s.GetLimits().GetCalls() == 1000 })
	content, _ := proto.Marshal(&machinepb.Limits{Calls: 77, MessageBytes: 1 << 20})
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: limit.Kind.Namespace, Type: limit.Kind.Type, Id: limit.Node, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	if _, err := store.Create(ctx, r, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("the resource", func(s *machinepb.LimitsStatus) bool {
		return s.GetObservedVersion() == "1" && s.GetReason() == "RestartPending" && s.GetLimits().GetCalls() == 77 && s.GetLimits().GetWatches() == 2000
	})
	if read, err := limit.Read(ctx, store); err != nil || read.GetCalls() != 77 || l.Values().GetCalls() != 77 {
		t.Errorf("Read: %v, %v; in force %v", read, err, l.Values())
	}
	if err := store.Destroy(ctx, state.PointerTo(r), state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("the defaults again", func(s *machinepb.LimitsStatus) bool {
		return s.GetObservedVersion() == "" && s.GetReason() == "InForce" && s.GetLimits().GetCalls() == 1000
	})
}

func TestParse(t *testing.T) {
	l := &machinepb.Limits{}
	if err := limit.Parse(l, "watches=12"); err != nil || l.GetWatches() != 12 {
		t.Errorf("%v, %v", l, err)
	}
	for text, want := range map[string]string{
		"watch=1": `"watch" is none of message_bytes, resource_bytes, resources_of_kind, watches, calls`,
		"watches": `watches: "" is no number`, "watches=0": `watches: "0" is no number`, "watches=-1": "is no number", "watches=4294967296": "is no number",
	} {
		if err := limit.Parse(l, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
