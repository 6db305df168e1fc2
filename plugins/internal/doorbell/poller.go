package doorbell

import (
	"context"
	"time"
)

// Often is how often a generator looks that nothing rings for.
const Often = 10 * time.Second

// Poller is the listener where nothing rings: it looks, and what it finds is what it hears.
type Poller[N any] struct {
	Every time.Duration
	// Look returns what has happened since it was called last.
	Look func() ([]N, error)
}

// Listen looks until ctx is done, or a look fails.
func (p Poller[N]) Listen(ctx context.Context, hear func(N), _ func(uint64)) error {
	ticker := time.NewTicker(p.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		notes, err := p.Look()
		if err != nil {
			return err
		}
		for _, n := range notes {
			hear(n)
		}
	}
}

// Close does nothing.
func (Poller[N]) Close() error { return nil }
