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
	bell *doorbell.Bell[note]

	mu     sync.Mutex // guards the fields below
	world  world
	err    error
	looks  int
	during func() // happens while everything is looked at
}

func (h *hardware) look() (world, error) {
	h.mu.Lock()
	during := h.during
	h.mu.Unlock()
	if during != nil {
		during()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks++
	w := network()
	w.links[2] = h.world.links[2]
	return w, h.err
}

// ring returns when n has been heard.
func (h *hardware) ring(n note) {
	before := h.bell.Status().GetRings()
	h.Notes <- n
	for h.bell.Status().GetRings() == before {
		time.Sleep(time.Millisecond)
	}
}

// move moves the carrier, each time to the other place. It does not ring.
func (h *hardware) move(times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.world.links[2]
	for range times {
		if l.carrier = !l.carrier; l.carrier {
			l.ups++
		} else {
			l.downs++
		}
	}
	h.world.links[2] = l
}

// meanwhile has something happen in each look, or nothing.
func (h *hardware) meanwhile(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.during = f
}

// fail has looks fail, or no longer.
func (h *hardware) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// waitForLook returns when everything was looked at once more.
func (h *hardware) waitForLook() {
	for before := h.looked(); h.looked() == before; {
		time.Sleep(time.Millisecond)
	}
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
	h.bell = h.Bell(doorbell.Fentry)
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(newGenerator(h.bell, h.look)))
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

	h.ring(note{at, subject{carrierDown, 2}})
	h.move(1)
	r.Wait("the carrier is gone", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "CarrierDown" || event.GetDevice() != "eth0" || event.GetIndex() != 2 || event.GetBoottimeNs() != uint64(at) || time.Since(event.GetTime().AsTime()).Abs() > time.Minute {
		t.Errorf("event %v", event)
	}

	h.fail(errors.New("the network is busy"))
	h.ring(note{at + 1, subject{carrierUp, 2}})
	h.waitForLook()
	h.move(2)
	h.fail(nil)
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
	h.move(1)
	h.start(t, r)
	r.Wait("it is said that events may be missing", func() bool { return r.Get(doorbell.ID(5), event) != nil && event.GetAction() == "Resynchronised" })
	h.ring(note{at + 2, subject{carrierDown, 2}})
	h.move(1)
	r.Wait("and the next is told", func() bool { return r.Get(doorbell.ID(6), event) != nil && event.GetAction() == "CarrierDown" })
}

// A change that the kernel announces before it is made, or not at all, is found by the look that follows.
func TestItLooksAgainWhenAllHasSettled(t *testing.T) {
	h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
	r := plugintest.Start(t, declared)
	h.start(t, r)
	time.Sleep(3 * settle) // what there was to look at in the beginning
	before := h.looked()
	h.ring(note{doorbell.Now(), subject{linkChange, 2}})
	r.Wait("it looks at once, and again", func() bool { return h.looked() == before+2 })
	time.Sleep(3 * settle)
	if looks := h.looked() - before; looks != 2 {
		t.Errorf("%d looks for one ring; want 2", looks)
	}
}

// What happens while everything is looked at has the time of its ring, not of the look.
func TestWhatALookFindsHasTheTimeOfTheRingMeanwhile(t *testing.T) {
	h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
	r := plugintest.Start(t, declared)
	h.start(t, r)
	at := doorbell.Now() - moment/2
	h.meanwhile(sync.OnceFunc(func() {
		h.ring(note{at, subject{carrierDown, 2}})
		h.move(1)
	}))
	h.ring(note{doorbell.Now(), subject{what: routes}})
	event := &eventspb.LinkEvent{}
	r.Wait("the carrier is gone", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "CarrierDown" || event.GetBoottimeNs() != uint64(at) {
		t.Errorf("event %v; want it at %d", event, at)
	}
}

// However often the kernel rings, a look that takes long is not repeated at once, nor is a short one a thousand times a second.
func TestLooksAreASmallShareOfTheTime(t *testing.T) {
	for _, long := range []time.Duration{0, 20 * time.Millisecond} {
		h := &hardware{Line: doorbelltest.NewLine[note](), world: network()}
		h.start(t, plugintest.Start(t, declared))
		h.meanwhile(func() { time.Sleep(long) })
		rest := max(share*long, breath)
		before := h.looked()
		began := time.Now()
		for time.Since(began) < 4*rest {
			h.ring(note{doorbell.Now(), subject{linkChange, 2}})
			time.Sleep(time.Millisecond)
		}
		if looks, most := h.looked()-before, 2+int(time.Since(began)/rest); looks > most {
			t.Errorf("%d looks of %s; want no more than %d", looks, long, most)
		}
	}
}
