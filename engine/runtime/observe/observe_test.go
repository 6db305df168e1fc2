package observe_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

var kind = state.Kind{Namespace: "config", Type: "MountPoints.storage.cosi.dev"}

func TestAViewHoldsWhatIsThereAndFollows(t *testing.T) {
	store, ctx := memory.New(memory.Options{}), context.Background()
	out := output.New(store)
	put := func(id, source string) {
		if err := out.Put(ctx, state.Pointer{Kind: kind, ID: id}, &storagepb.MountPoint{Source: source}); err != nil {
			t.Fatal(err)
		}
	}
	put("b", "1")
	put("a", "1")
	v := observe.New(store, func() {}, kind)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- v.Run(running) }()
	is := func(want ...string) {
		t.Helper()
		var got []string
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			got = nil
			for _, item := range observe.Items[storagepb.MountPoint](v, kind) {
				got = append(got, item.GetId()+item.Spec.GetSource())
			}
			if slices.Equal(got, want) {
				return
			}
		}
		t.Fatalf("view = %v; want %v", got, want)
	}
	is("a1", "b1")
	put("a", "2")
	is("a2", "b1")
	if err := out.Delete(ctx, state.Pointer{Kind: kind, ID: "b"}); err != nil {
		t.Fatal(err)
	}
	is("a2")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

// slowOnce is a state whose first watch falls behind after a resource that is gone by then.
type slowOnce struct {
	state.State
	watches int
}

func (s *slowOnce) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	if s.watches++; s.watches == 1 {
		return &slow{}, nil
	}
	return s.State.Watch(ctx, w)
}

type slow struct{ asked bool }

func (s *slow) Next(context.Context) ([]*state.Event, error) {
	if s.asked {
		return nil, state.ErrSlow
	}
	s.asked = true
	gone := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: "gone"}}
	return []*state.Event{{Resource: gone, EventType: resourcepb.EventType_CREATED}}, nil
}

func TestAViewThatFellBehindStartsAnew(t *testing.T) {
	store, ctx := memory.New(memory.Options{}), context.Background()
	if err := output.New(store).Put(ctx, state.Pointer{Kind: kind, ID: "a"}, &storagepb.MountPoint{}); err != nil {
		t.Fatal(err)
	}
	v := observe.New(&slowOnce{State: store}, func() {}, kind)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if all := v.Resources(kind); len(all) == 1 && all[0].GetMetadata().GetId() == "a" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("view = %v; want a alone", v.Resources(kind))
		}
	}
	cancel()
	<-ended
}

func TestAWatchThatCannotBeSetUpEndsTheView(t *testing.T) {
	if err := observe.New(refusing{}, func() {}, kind).Run(context.Background()); !errors.Is(err, state.ErrDenied) {
		t.Errorf("Run: %v; want ErrDenied", err)
	}
}

type refusing struct{ state.State }

func (refusing) Watch(context.Context, state.WatchRequest) (state.Watch, error) {
	return nil, state.ErrDenied
}
