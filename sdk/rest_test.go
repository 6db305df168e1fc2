package sdk

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestAPluginWithNothingToDoCollectsNoGarbage(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	r := newRest()
	defer r.timer.Stop()
	for range 2 {
		r.begin()
		r.begin() // the timer may be late
		if percent, limit := gc(); percent != -1 || limit != restLimit {
			t.Errorf("resting: percent %d, limit %d; want no collection below %d", percent, limit, restLimit)
		}
		r.end()
		r.end()
		if percent, limit := gc(); percent != 100 || limit != math.MaxInt64 {
			t.Errorf("awake: percent %d, limit %d; want them as before", percent, limit)
		}
	}
	(*rest)(nil).end()
}

func TestTheFirstCollectionMustBeWorthIt(t *testing.T) {
	for _, c := range []struct {
		cycles, bytes uint64
		want          bool
	}{{0, 2 << 20, false}, {0, 3 << 20, true}, {1, 2 << 20, true}} {
		if got := worth(c.cycles, c.bytes); got != c.want {
			t.Errorf("%d bytes, collected %d times: %v; want %v", c.bytes, c.cycles, got, c.want)
		}
	}
}

// gc returns how the garbage collector is set.
func gc() (percent int, limit int64) {
	percent = debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return percent, debug.SetMemoryLimit(-1)
}
