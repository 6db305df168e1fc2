package sdk

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// restAfter is how long a plugin has had nothing to do when it rests.
	restAfter = 10 * time.Second
	// restLimit is how much a resting plugin may allocate, in watches of its own for example, before garbage is collected all the same.
	restLimit = 16 << 20
	// smallHeap is one that is left as it is: the first collection takes 0.7 MiB for itself and keeps that.
	smallHeap = 5 << 19
)

// rest gives memory back while a plugin has nothing to do, and then keeps Go's runtime asleep: it would collect garbage every two minutes,
// and give memory back page by page, a hundred wake-ups each time. What is left is its monitor, once a minute. A nil rest does nothing.
type rest struct {
	timer *time.Timer

	mu      sync.Mutex // guards the fields below
	percent int        // of the garbage collector, when awake
	resting bool
}

func newRest() *rest {
	// Set by hand, it is not looked up again every minute (Go 1.25 and later); the control groups of plugins have no limit that changes.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	r := &rest{}
	r.timer = time.AfterFunc(restAfter, r.begin)
	return r
}

// begin is called by the timer.
func (r *rest) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resting {
		return
	}
	r.resting = true
	r.percent = debug.SetGCPercent(-1)
	debug.SetMemoryLimit(restLimit)
	tidy()
}

// tidy gives back what nobody uses, if that may be more than it takes to find it.
func tidy() {
	samples := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	if !worth(samples[0].Value.Uint64(), samples[1].Value.Uint64()) {
		return
	}
	runtime.GC() // what is in a pool goes in the second collection after it was put there
	debug.FreeOSMemory()
}

// worth says whether a heap of so many bytes that was collected so often is to be collected.
func worth(cycles, bytes uint64) bool { return cycles > 0 || bytes >= smallHeap }

// end says that there is something to do.
func (r *rest) end() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resting {
		r.resting = false
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(r.percent)
	}
	r.timer.Reset(restAfter)
}
