package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// maxSegments is how many segments there may be before there is a snapshot, however little is in them: each start leaves one.
const maxSegments = 16

// Run makes a snapshot whenever one is due, until ctx is done. Without it the log grows until the disk is full. What goes wrong is told
// to Options.Warn, and tried again when the log has grown further, or when a write finds no room.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.due:
			if err := s.takeSnapshot(true); err != nil {
				s.options.Warn(err)
			}
		}
	}
}

// ask wakes Run.
func (s *Store) ask() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// takeSnapshot writes down what there is, and then removes what this makes superfluous. Writers go on meanwhile. Without its history,
// which is left out where there is no room for it, a snapshot is as small as it can be.
func (s *Store) takeSnapshot(withHistory bool) error {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.mu.Lock()
	old, sealed, loose := s.snapshot, s.sealed, s.loose
	taken := stored{last: s.Sequence()}
	s.mu.Unlock()
	if taken.last == old.last && (withHistory || !old.history) {
		return nil
	}
	taken.name = fileName(taken.last, imageSuffix)
	if err := s.fill(&taken, withHistory); err != nil {
		s.spare.drop(s.disk)
		return fmt.Errorf("%s: %w", taken.name, err)
	}
	f, name := s.spare.take()
	err := f.Sync()
	f.Close()
	if err == nil {
		err = rename(s.disk, name, taken.name, s.options)
	}
	if err != nil {
		s.disk.Remove(name) // unless it is called otherwise now
		return fmt.Errorf("%s: %w", taken.name, err)
	}
	s.mu.Lock()
	s.snapshot = taken
	s.sealed -= sealed
	s.loose -= loose
	s.mu.Unlock()
	if old.name != "" && old.name != taken.name {
		if err := s.disk.Remove(old.name); err != nil {
			return err
		}
	}
	return errors.Join(s.removeCovered(), s.replaceSpare())
}

// replaceSpare makes another spare file. When the disk is too full for it, writers will see that.
func (s *Store) replaceSpare() error {
	err := s.keepSpare(s.emergency())
	if isFull(err) {
		err = s.keepSpare(0)
	}
	return notFull(err)
}

// fill writes the snapshot into the spare file and cuts that to its length.
func (s *Store) fill(taken *stored, withHistory bool) error {
	f, err := s.spare.open(s.disk)
	if err != nil {
		return err
	}
	taken.history = withHistory
	taken.size, err = writeImage(f, s.Table, taken.last, withHistory, s.others.yield)
	if withHistory && isFull(err) {
		taken.history = false
		taken.size, err = writeImage(f, s.Table, taken.last, false, s.others.yield)
	}
	if err != nil {
		return err
	}
	return f.Truncate(taken.size)
}

// removeCovered removes the segments that hold nothing after the snapshot.
func (s *Store) removeCovered() error {
	s.mu.Lock()
	names := s.covered()
	s.mu.Unlock()
	for _, name := range names {
		if err := s.disk.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// covered forgets the segments that hold nothing after the snapshot and returns their names. The newest segment stays: a snapshot is always
// followed by one. s.mu is held.
func (s *Store) covered() (names []string) {
	for i, f := range s.files {
		if f.last > s.snapshot.last || i == len(s.files)-1 && s.room == 0 {
			break
		}
		names = append(names, f.name)
	}
	s.files = slices.Delete(s.files, 0, len(names))
	return names
}
