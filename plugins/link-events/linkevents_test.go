package linkevents

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
	"github.com/cosi-os/cosi/sdk"
)

// hardware is a network that a test changes.
type hardware struct {
	doorbelltest.Line[note]

	mu    sync.Mutex // guards the fields below
	world world
	err   error
	looks int
}

func (h *hardware) look() (world, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks++
	w := network()
	w.links[2] = h.world.links[2]
	return w, h.err
}

// flap moves the carrier, without a ring.
func (h *hardware) flap(carrier bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.world.links[2]
	if l.carrier = carrier; carrier {
		l.ups++
	} else {
		l.downs++
	}
	h.world.links[2], h.err = l, err
}

func (h *hardware) looked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.looks
}

// start runs the plugin, until the test or end ends it.
func (h *hardware) start(t *testing.T, r *plugintest.Runtime) (end func()) {
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(newGenerator(h.Bell(doorbell.Fentry), h.look)))
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	r.WaitReady()
	return end
}

func TestEvents(t *testing.T) {
	h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
	r := plugintest.Start(t, declared)
	end := h.start(t, r)
	event, status := &eventspb.LinkEvent{}, &eventspb.GeneratorStatus{}
	at := doorbell.Now()

	h.flap(false, nil)
	h.Notes <- note{at, subject{carrierDown, 2}}
	r.Wait("the carrier is gone", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "CarrierDown" || event.GetDevice() != "eth0" || event.GetIndex() != 2 || event.GetBoottimeNs() != uint64(at) || time.Since(event.GetTime().AsTime()).Abs() > time.Minute {
		t.Errorf("event %v", event)
	}

	h.flap(true, errors.New("the network is busy"))
	h.Notes <- note{at + 1, subject{carrierUp, 2}}
	for before := h.looked(); h.looked() == before; {
		time.Sleep(time.Millisecond)
	}
	h.flap(false, nil)
	r.Wait("both changes are there", func() bool { return r.Get(doorbell.ID(3), event) != nil })
	if event.GetAction() != "CarrierDown" || r.Get(doorbell.ID(2), event) == nil || event.GetAction() != "CarrierUp" || event.GetBoottimeNs() != uint64(at+1) {
		t.Errorf("event %v; want that what was not looked up is looked up again, with its time", event)
	}

	h.Lost <- 3
	r.Wait("the loss is an event", func() bool { return r.Get(doorbell.ID(4), event) != nil && event.GetAction() == "Resynchronised" })
	r.Wait("and counted", func() bool {
		return r.Get(name, status) != nil && status.GetLost() == 3 && status.GetMode() == "fentry" && status.GetRings() == 2
	})
	end()
	h.flap(true, nil)
	h.start(t, r)
	r.Wait("it is said that events may be missing", func() bool { return r.Get(doorbell.ID(5), event) != nil && event.GetAction() == "Resynchronised" })
	h.flap(false, nil)
	h.Notes <- note{at + 2, subject{carrierDown, 2}}
	r.Wait("and the next is told", func() bool { return r.Get(doorbell.ID(6), event) != nil && event.GetAction() == "CarrierDown" })
}

// A change that the kernel announces before it is made, or not at all, is found by the look that follows.
func TestItLooksAgainWhenAllHasSettled(t *testing.T) {
	h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
	r := plugintest.Start(t, declared)
	h.start(t, r)
	time.Sleep(3 * settle) // what there was to look at in the beginning
	at, before := doorbell.Now(), h.looked()
	h.Notes <- note{at, subject{linkChange, 2}}
	for h.looked() == before {
		time.Sleep(time.Millisecond)
	}
	h.flap(false, nil)
	event := &eventspb.LinkEvent{}
	r.Wait("the change is found", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "CarrierDown" || event.GetBoottimeNs() != uint64(at) {
		t.Errorf("event %v; want it with the time of the ring", event)
	}
}

// A look that takes long is not repeated at once, however often the kernel rings.
func TestLooksAreASmallShareOfTheTime(t *testing.T) {
	const long = 20 * time.Millisecond
	h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
	g := newGenerator(&doorbell.Bell[note]{}, func() (world, error) { time.Sleep(long); return h.look() })
	g.rested = time.Now().Add(share * long)
	began := time.Now()
	if err := g.rest(t.Context()); err != nil || time.Since(began) < share*long-long {
		t.Errorf("rest = %v after %v; want %v", err, time.Since(began), share*long)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	g.rested = time.Now().Add(time.Hour)
	if err := g.rest(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("rest = %v; want that it ends with the plugin", err)
	}
}
