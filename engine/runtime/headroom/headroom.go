// Package headroom gives garbage room while there is much of it. The runtime starts it, on a node when the boot is over.
//
// Go collects when the heap has doubled. A runtime that holds little has a heap of a few MiB, and calls fill that with garbage many times a
// second: collecting is then a fifth of what a call costs. While collections follow each other closely, the heap may therefore grow
// by a fixed number of bytes if that is more; some seconds after the last of them all is as it was, so that an idle runtime
// holds no more than it needs. A heap that is large already is left to Go.
package headroom

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// most is the room where there is memory enough, part of the memory of the machine what it is at most.
	most, part = 32 << 20, 1.0 / 32
	// close together are collections that come within this time.
	close = time.Second
	// calm is how long after the last of those the room is taken back.
	calm = 5 * time.Second
)

// Keep starts to give room, for as long as the process lives. It does nothing when collection is off (GOGC=off).
func Keep() {
	bytes := float64(most)
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		bytes = min(bytes, part*float64(info.Totalram)*float64(info.Unit))
	}
	keep(bytes, close, calm)
}

// keeper is told of each collection.
type keeper struct {
	bytes       float64 // the room
	close, calm time.Duration
	usual       int // percent, as in GOGC

	mu      sync.Mutex // guards the fields below
	percent int        // that is in force
	last    time.Time  // collection
	back    *time.Timer
}

// keep returns nil when collection is off.
func keep(bytes float64, close, calm time.Duration) *keeper {
	usual := debug.SetGCPercent(100)
	debug.SetGCPercent(usual)
	if usual < 0 {
		return nil
	}
	k := &keeper{bytes: bytes, close: close, calm: calm, usual: usual, percent: usual}
	k.back = time.AfterFunc(calm, k.calmed)
	k.await()
	return k
}

// await has collected called after the next collection: when something that nobody refers to is gone.
func (k *keeper) await() { runtime.AddCleanup(new(*keeper), (*keeper).collected, k) }

func (k *keeper) collected() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.await()
	now := time.Now()
	if now.Sub(k.last) < k.close {
		k.set(k.wanted())
		k.back.Reset(k.calm)
	}
	k.last = now
}

// wanted returns the percent that gives the room.
func (k *keeper) wanted() int { return max(k.usual, int(100*k.bytes/live())) }

func (k *keeper) calmed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set(k.usual)
}

// set puts another percent in force. A small difference is not worth stopping everybody.
func (k *keeper) set(percent int) {
	if percent == k.usual && k.percent != k.usual || percent > k.percent*5/4 || percent < k.percent*4/5 {
		k.percent = percent
		debug.SetGCPercent(percent)
	}
}

// live returns what the last collection found to be in use.
func live() float64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return max(1, float64(sample[0].Value.Uint64()))
}
