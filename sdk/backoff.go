package sdk

import (
	"context"
	"time"
)

// Back-off of everything that is tried again: 100 ms doubling to 30 s.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 30 * time.Second
)

// backoff counts failures in a row.
type backoff struct{ next time.Duration }

// failed returns how long to wait before the next try.
func (b *backoff) failed() time.Duration {
	d := max(b.next, backoffFirst)
	b.next = min(2*d, backoffLast)
	return d
}

// succeeded makes the next failure the first one.
func (b *backoff) succeeded() { b.next = 0 }

// sleep waits for d or until ctx is done. It reports whether d has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
