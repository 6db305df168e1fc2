package headroom

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// percent returns what is in force.
func percent() int {
	p := debug.SetGCPercent(-1)
	debug.SetGCPercent(p)
	return p
}

func TestThereIsRoomWhileCollectionsAreFrequent(t *testing.T) {
	const usual = 100
	debug.SetGCPercent(usual)
	keep(32<<20, time.Hour, 200*time.Millisecond)
	for end := time.Now().Add(30 * time.Second); percent() < 4*usual; time.Sleep(time.Millisecond) { // the heap of a test is small
		if time.Now().After(end) {
			t.Fatalf("the percent is %d; want 100 for each %d bytes in 32 MiB", percent(), int(live()))
		}
		runtime.GC()
	}
	for end := time.Now().Add(30 * time.Second); percent() != usual; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the percent is %d afterwards; want %d", percent(), usual)
		}
	}
}

func TestALargeHeapIsLeftAlone(t *testing.T) {
	const usual = 100
	debug.SetGCPercent(usual)
	k := &keeper{bytes: live() / 2, close: time.Hour, calm: time.Hour, usual: usual, percent: usual, last: time.Now()}
	k.back = time.AfterFunc(k.calm, k.calmed)
	defer k.back.Stop()
	k.set(k.wanted())
	if percent() != usual {
		t.Errorf("with a heap of twice the room the percent is %d; want %d", percent(), usual)
	}
}

func TestNothingIsKeptWhenCollectionIsOff(t *testing.T) {
	usual := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(usual)
	if keep(32<<20, time.Hour, time.Hour) != nil || percent() != -1 {
		t.Errorf("collection is kept at %d %%; want it off", percent())
	}
}
