package supervisor

import (
	"math/rand/v2"
	"time"
)

// Backoff says how long a process that has ended waits for its next start.
type Backoff struct {
	Min, Max time.Duration
	// Healthy is how long a process must have run for the wait to begin at Min again.
	Healthy time.Duration
}

// DefaultBackoff is 100 ms, doubling to 30 s, reset after a healthy minute.
var DefaultBackoff = Backoff{Min: 100 * time.Millisecond, Max: 30 * time.Second, Healthy: time.Minute}

// next returns the step after last (zero: none yet) of a process that ran for uptime, and the wait: the step less up to a quarter,
// so that processes which died together do not start together.
func (b Backoff) next(last, uptime time.Duration) (step, wait time.Duration) {
	switch {
	case last == 0 || uptime >= b.Healthy:
		step = b.Min
	default:
		step = min(2*last, b.Max)
	}
	return step, step - rand.N(step/4+1)
}
