package pressureevents

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// polled are triggers that the kernel does not take: their files are read again and again.
type polled struct{ *triggers }

// often is how often they are read: the shortest window holds two.
const often = time.Second

// reading is how long tasks have waited in all, at one time.
type reading struct{ at, total time.Duration }

// beginPolled fails where the kernel has no files in dir.
func (t *triggers) beginPolled(dir string) error {
	fd, err := openPolled(nil, filepath.Join(dir, "memory"))
	if err != nil {
		return err
	}
	unix.Close(fd)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun = true
	return nil
}

func openPolled(_ *eventspb.PressureThreshold, file string) (int, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", file, err)
	}
	return fd, nil
}

// Listen reads the files until ctx is done.
func (p polled) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	return doorbell.Poller[note]{Every: often, Look: func() ([]note, error) { return p.look(doorbell.Now()), nil }}.Listen(ctx, hear, lost)
}

// look returns the notes of thresholds that were passed, and of those that can no longer be read.
func (p polled) look(now time.Duration) (notes []note) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, one := range p.open {
		total, err := one.total()
		if err != nil || one.passed(reading{now, total}) {
			notes = append(notes, p.note(id, total, err != nil))
		}
	}
	return notes
}

// passed takes in a reading, and reports whether tasks have waited for as long as the threshold says within its window. A new one begins then.
func (t *trigger) passed(r reading) bool {
	t.read = append(t.read, r)
	for r.at-t.read[0].at > t.threshold.GetWindow().AsDuration()+often/2 { // half a period, as ticks come late
		t.read = t.read[1:]
	}
	if r.total-t.read[0].total < t.threshold.GetStall().AsDuration() {
		return false
	}
	t.read = t.read[len(t.read)-1:]
	return true
}
