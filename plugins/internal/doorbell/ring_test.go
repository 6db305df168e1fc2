package doorbell

import (
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
)

func TestMerge(t *testing.T) {
	event := func(action, device string) *eventspb.BlockEvent {
		return &eventspb.BlockEvent{Action: action, Device: device}
	}
	r := &Ring[*eventspb.BlockEvent]{SetCount: func(e *eventspb.BlockEvent, count uint64) { e.Count = count }, Same: OfDevice[*eventspb.BlockEvent]()}
	var storm []*eventspb.BlockEvent
	for range 50 {
		storm = append(storm, event("Added", "loop0"), event("Removed", "loop0"), event("Added", "loop1"))
	}
	left, merged := r.merge(storm, 3)
	if len(left) != 3 || merged != 147 {
		t.Fatalf("merge left %d events, merged %d; want 3, 147", len(left), merged)
	}
	var rings uint64
	for _, e := range left {
		rings += max(e.GetCount(), 1)
	}
	if rings != 150 || left[2].GetDevice() != "loop1" || left[1].GetAction() != "Removed" {
		t.Errorf("%v stand for %d rings; want 150, in their order", left, rings)
	}
	if left, merged := r.merge([]*eventspb.BlockEvent{event("Added", "a"), event("Removed", "a"), event("Added", "b")}, 2); len(left) != 2 || merged != 1 || left[0].GetAction() != "Removed" || left[0].GetCount() != 2 {
		t.Errorf("merge = %v, %d; want the last of each device", left, merged)
	}
	few := []*eventspb.BlockEvent{event("Added", "a"), event("Added", "a")}
	if left, merged := r.merge(few, 2); len(left) != 2 || merged != 0 {
		t.Errorf("merge = %v, %d; want no merge without need", left, merged)
	}
}

func TestOfAStormTheGistIsWritten(t *testing.T) {
	r := &Ring[*eventspb.BlockEvent]{SetCount: func(e *eventspb.BlockEvent, count uint64) { e.Count = count }, Same: OfDevice[*eventspb.BlockEvent]()}
	add := func(n int) {
		for range n {
			r.Add(&eventspb.BlockEvent{Action: "Resized", Device: "loop0"})
		}
	}
	add(burst)
	if merged := r.Merge(); merged != 0 || len(r.pending) != burst || !r.rested.IsZero() {
		t.Errorf("Merge of %d events = %d, %d are left, the next may be written at %v; want each, and no pause", burst, merged, len(r.pending), r.rested)
	}
	add(1)
	if merged := r.Merge(); merged != burst+1-gist || len(r.pending) != gist || time.Until(r.rested) < pause/2 {
		t.Errorf("Merge of %d events = %d, %d are left, the next may be written at %v; want %d, after a pause", burst+1, merged, len(r.pending), r.rested, gist)
	}
}

func TestTheBeginningIsNoLoss(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		r := &Ring[*eventspb.BlockEvent]{restarted: restarted}
		r.Add(&eventspb.BlockEvent{Action: "Added"}) // rang before the first look
		if r.Incomplete(NoGap) {
			t.Error("something is missing, though nothing was lost")
		}
		if got := r.Incomplete(Opened); got != restarted {
			t.Errorf("restarted %v: in the beginning something is missing: %v", restarted, got)
		}
		if r.Incomplete(Opened) {
			t.Error("said twice, though nothing was written in between")
		}
		if !r.Incomplete(Lost) {
			t.Error("what is lost in the beginning is no loss")
		}
		r.settled = r.settling // by Write
		if !r.Incomplete(Opened) || r.Incomplete(NoGap) {
			t.Errorf("restarted %v: later on a loss is none, or what is no loss is one", restarted)
		}
	}
}
