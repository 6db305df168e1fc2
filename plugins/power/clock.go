package power

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// clock is the time. That of a test is the test's.
type clock interface {
	alarm.Clock
	Boottime() time.Duration // of CLOCK_BOOTTIME
}

type realClock struct{ alarm.System }

func (realClock) Boottime() time.Duration { return doorbell.Now() }

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
