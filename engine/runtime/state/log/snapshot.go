package log

import (
	"context"
	"slices"
)

// maxSegments is how many segments there may be before there is a snapshot, however little is in them: each start leaves one.
const maxSegments = 16

// Run makes a snapshot whenever one is due, until ctx is done. Without it the log grows. What goes wrong is told to Options.Warn, and
// tried again when the log has grown further.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.due:
			if err := s.takeSnapshot(); err != nil {
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

// takeSnapshot writes down what there is, and then removes what this makes superfluous. Writers go on meanwhile.
func (s *Store) takeSnapshot() error {
	s.mu.Lock()
	old, grown := s.snapshot, s.sealed
	s.sealed = 0
	s.mu.Unlock()
	taken := stored{last: s.Sequence()}
	if taken.last == old.last {
		return nil
	}
	taken.name = fileName(taken.last, imageSuffix)
	f, err := born(s.disk, taken.name, s.options, func(f file) (err error) {
		taken.size, err = writeImage(f, s.Table, taken.last)
		return err
	})
	s.mu.Lock()
	if err != nil {
		s.sealed += grown
		s.mu.Unlock()
		return err
	}
	f.Close()
	s.snapshot = taken
	superfluous := s.covered(taken.last)
	s.mu.Unlock()
	if old.name != "" {
		superfluous = append(superfluous, old.name)
	}
	for _, name := range superfluous {
		if err := s.disk.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// covered forgets the segments that hold nothing after a commit and returns their names. The newest stays: a snapshot is always followed
// by a segment. s.mu is held.
func (s *Store) covered(last uint64) (names []string) {
	for i, f := range s.files {
		if f.last > last || i == len(s.files)-1 {
			break
		}
		names = append(names, f.name)
	}
	s.files = slices.Delete(s.files, 0, len(names))
	return names
}
