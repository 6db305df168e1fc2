package power

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// clock is the time. That of a test is the test's.
type clock interface {
	Now() time.Time
	Boottime() time.Duration // of CLOCK_BOOTTIME
	After(d time.Duration) <-chan time.Time
}

type realClock struct{}

func (realClock) Now() time.Time                         { return time.Now() }
func (realClock) Boottime() time.Duration                { return doorbell.Now() }
func (realClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// alarm wakes a controller at a time that it has named.
type alarm struct {
	clock clock
	moved chan struct{} // holds one

	mu sync.Mutex // guards the field below
	at time.Time  // zero: never
}

func newAlarm(c clock) *alarm { return &alarm{clock: c, moved: make(chan struct{}, 1)} }

// ring sets the time; zero is never.
func (a *alarm) ring(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.Equal(at) {
		return
	}
	a.at = at
	select {
	case a.moved <- struct{}{}:
	default: // one is enough
	}
}

// watch calls wake at the time, until ctx is done.
func (a *alarm) watch(ctx context.Context, wake func()) error {
	for {
		select {
		case <-a.due():
			a.ring(time.Time{})
			wake()
		case <-a.moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// due is nil, which never comes, without a time.
func (a *alarm) due() <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.IsZero() {
		return nil
	}
	return a.clock.After(a.at.Sub(a.clock.Now()))
}

// sightings say of resources, by their ids, when each was seen first as it is now. The times are of this process: they go on evenly when the
// node's clock is set.
type sightings map[string]sighting

type sighting struct {
	created time.Time // of this life
	version string
	at      time.Time
	refused bool
}

// look returns the sightings of all, those of old where nothing was written since.
func look[T proto.Message](old sightings, all []sdk.Resource[T], now time.Time) sightings {
	seen := sightings{}
	for _, r := range all {
		s := sighting{created: r.GetCreated().AsTime(), version: r.GetVersion(), at: now}
		if before, ok := old[r.GetId()]; ok && before.created.Equal(s.created) && before.version == s.version {
			s = before
		}
		seen[r.GetId()] = s
	}
	return seen
}
