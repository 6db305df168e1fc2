package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// percent is how much garbage there may be, -1 where it is not collected.
func percent() int {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// collected waits until what other tests have left to the next collection is done: a runtime that they started may have hurried until now.
func collected() {
	for range 2 {
		done := make(chan struct{})
		runtime.AddCleanup(new([16]byte), func(done chan struct{}) { close(done) }, done)
		runtime.GC()
		<-done
	}
}

func TestTheFirstCollectionEndsTheHurry(t *testing.T) {
	collected()
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	r := &nodeRuntime{}
	r.hurry()
	if p := percent(); p != hurried {
		t.Fatalf("%d percent; want %d", p, hurried)
	}
	runtime.GC()
	for deadline := time.Now().Add(10 * time.Second); percent() != 70; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d percent after a collection; want 70", percent())
		}
	}
}

func TestNobodyHurriesWhereNothingIsCollected(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	r := &nodeRuntime{}
	r.hurry()
	r.first.Stop()
	if p := percent(); p != -1 || r.garbage != -1 {
		t.Errorf("%d percent, %d to return to; want -1", p, r.garbage)
	}
}
