package server_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

var request = &resourcepb.TeardownAndDestroyRequest{Namespace: namespace, Type: typ, Id: "a"}

func held(id string) *resourcepb.Resource {
	r := thing(id)
	r.Metadata.Finalizers = []string{"holder"}
	return r
}

// whenTearingDown lets the test act once the resource is tearing down.
func (n *node) whenTearingDown(t *testing.T, act func(*resourcepb.Resource)) (wait func()) {
	t.Helper()
	id := "a"
	w, err := n.store.Watch(t.Context(), state.WatchRequest{Kind: state.Kind{Namespace: namespace, Type: typ}, ID: &id})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			events, err := w.Next(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if r := events[len(events)-1].GetResource(); r.GetMetadata().GetPhase() == state.PhaseTearingDown {
				act(r)
				return
			}
		}
	}()
	return func() { <-done }
}

// release removes the finalizers of r, as its holder does.
func (n *node) release(t *testing.T, r *resourcepb.Resource) {
	without := thing(r.GetMetadata().GetId())
	without.Metadata.Version = r.GetMetadata().GetVersion()
	if _, err := n.store.Update(t.Context(), without, state.WriteOptions{}); err != nil {
		t.Error(err)
	}
}

func (n *node) phase(t *testing.T) string {
	t.Helper()
	answer, err := n.Get(t.Context(), &resourcepb.GetRequest{Namespace: namespace, Type: typ, Id: "a"})
	if err != nil {
		return "gone"
	}
	return answer.GetResource().GetMetadata().GetPhase()
}

func TestTeardownAndDestroyWithoutFinalizersIsAtOnce(t *testing.T) {
	n := newNode(t)
	n.create(t, thing("a"))
	if _, err := n.TeardownAndDestroy(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if got := n.phase(t); got != "gone" {
		t.Errorf("the resource is %s; want it gone", got)
	}
}

func TestTeardownAndDestroyWaitsForFinalizers(t *testing.T) {
	n := newNode(t)
	n.create(t, held("a"))
	wait := n.whenTearingDown(t, func(r *resourcepb.Resource) { n.release(t, r) })
	if _, err := n.TeardownAndDestroy(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	wait()
	if got := n.phase(t); got != "gone" {
		t.Errorf("the resource is %s; want it gone", got)
	}
}

func TestTeardownAndDestroySucceedsWhenSomebodyElseDestroys(t *testing.T) {
	n := newNode(t)
	n.create(t, held("a"))
	wait := n.whenTearingDown(t, func(r *resourcepb.Resource) {
		n.release(t, r)
		n.store.Destroy(t.Context(), state.PointerTo(r), state.WriteOptions{}) // whoever is first
	})
	if _, err := n.TeardownAndDestroy(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	wait()
}

func TestTeardownAndDestroyLeavesALaterResourceOfThatName(t *testing.T) {
	n := newNode(t)
	n.create(t, held("a"))
	wait := n.whenTearingDown(t, func(r *resourcepb.Resource) {
		n.release(t, r)
		n.store.Destroy(t.Context(), state.PointerTo(r), state.WriteOptions{}) // whoever is first
		if _, err := n.store.Create(t.Context(), held("a"), state.WriteOptions{}); err != nil {
			t.Error(err)
		}
	})
	if _, err := n.TeardownAndDestroy(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	wait()
	if got := n.phase(t); got != state.PhaseRunning {
		t.Errorf("the later resource is %s; want it running", got)
	}
}

func TestTeardownAndDestroyEndsWithTheDeadlineAndLeavesTearingDown(t *testing.T) {
	n := newNode(t)
	n.create(t, held("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := n.TeardownAndDestroy(ctx, request)
	wantCode(t, "TeardownAndDestroy", err, codes.DeadlineExceeded)
	if got := n.phase(t); got != state.PhaseTearingDown {
		t.Errorf("the resource is %s; want it tearing down", got)
	}
}

func TestTeardownAndDestroyChecksExistenceAndOwner(t *testing.T) {
	n := newNode(t)
	_, err := n.TeardownAndDestroy(t.Context(), request)
	wantCode(t, "of nothing", err, codes.NotFound)
	if _, err := n.store.Create(t.Context(), thing("a"), state.WriteOptions{Owner: "mount"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.TeardownAndDestroy(t.Context(), request)
	wantCode(t, "by nobody", err, codes.PermissionDenied)
	if got := n.phase(t); got != state.PhaseRunning {
		t.Errorf("the resource is %s; want it running", got)
	}
}

func TestTeardownAndDestroySurvivesFallingBehind(t *testing.T) {
	n := newNode(t)
	r := n.create(t, held("a"))
	done := make(chan error, 1)
	go func() {
		_, err := n.TeardownAndDestroy(t.Context(), request)
		done <- err
	}()
	for range 2000 { // far more than the history holds
		next, err := n.store.Update(t.Context(), r, state.WriteOptions{})
		if err != nil { // the teardown came between
			next, err = n.store.Get(t.Context(), state.PointerTo(r))
		}
		if err != nil {
			t.Fatal(err)
		}
		r = next
	}
	n.whenTearingDown(t, func(r *resourcepb.Resource) { n.release(t, r) })()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestTeardownAndDestroyInADryRunNeitherWaitsNorWrites(t *testing.T) {
	n := newNode(t)
	n.create(t, held("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := n.TeardownAndDestroy(metadata.AppendToOutgoingContext(ctx, server.DryRun, "true"), request); err != nil {
		t.Error(err)
	}
	if got := n.phase(t); got != state.PhaseRunning {
		t.Errorf("the resource is %s; want it running", got)
	}
}
