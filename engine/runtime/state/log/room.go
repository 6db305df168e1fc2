package log

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// A full disk must not be the end: what takes something away goes on, and what it takes away becomes room. So three things are kept, out
// of what is left when other writes are refused:
//
//	reserve      at the end of each segment, for writes that take something away
//	spare        for a snapshot of all that there is when the segment is full
//	emergency    in the spare file, for the segment that is begun when reserve and disk are used up
//
// A snapshot then frees the one before, the segments that it covers, and what was taken away.

// reserve is how much room a segment keeps at least. Larger segments keep as much as a write of the largest resource takes.
const reserve = 16 << 10

func (o Options) reserve() int64 { return max(reserve, o.SegmentBytes*3/8) }

// emergency is what the spare file holds beyond a snapshot: two segments can outlive the snapshot that covers them, the one that was
// written at that moment and the one before.
func (s *Store) emergency() int64 { return 2*s.options.SegmentBytes + 3*s.smallest() }

// frameHeads is what the heads of a few blocks take.
const frameHeads = 4 << 10

// need is how large a snapshot can be that holds what there is, with current bytes in the segment that is written, and room bytes more.
// A snapshot never takes more than what it is made of but for the heads of its blocks. s.mu is held.
func (s *Store) need(current, room int64) int64 {
	n := s.snapshot.size + current + room
	for _, f := range s.files {
		if f.last > s.snapshot.last {
			n += f.size
		}
	}
	return n + n/8 + frameHeads
}

// makeRoom makes room for the record of b. Where there is none, a snapshot may make it. It fails with an error of a full disk when
// nothing is left to be done; a batch that takes something away may then use what is kept for it. Only the leader whose turn it is calls it.
func (s *Store) makeRoom(b *batch) error {
	if s.hasRoom(b, s.options.reserve()) && s.keepSpare(0) == nil {
		return nil
	}
	err := s.begin(b, s.emergency())
	if !isFull(err) || b.leaving && s.hasRoom(b, 0) {
		return notFull(err)
	}
	if s.compact(b.leaving) {
		err = s.begin(b, s.emergency())
	}
	if isFull(err) && b.leaving {
		err = s.begin(b, 0)
	}
	return err
}

// notFull returns err, nil if it says that the disk is full.
func notFull(err error) error {
	if isFull(err) {
		return nil
	}
	return err
}

// hasRoom says whether the record of b, and more besides, has room in the segment.
func (s *Store) hasRoom(b *batch, more int64) bool {
	return s.segment != nil && !s.segment.unsure && s.segment.has(int64(len(b.record))+more)
}

// keepSpare makes the spare file large enough for a snapshot of all that the segment can hold, and extra bytes.
func (s *Store) keepSpare(extra int64) error {
	s.mu.Lock()
	need := s.need(0, s.room)
	s.mu.Unlock()
	return s.spare.grow(s.disk, need+extra)
}

// compact takes a snapshot if that gives back enough to be worth it, or anything at all, and says whether it did.
func (s *Store) compact(anything bool) bool {
	s.mu.Lock()
	worth := s.snapshot.history || s.loose >= max(s.smallest(), s.snapshot.size/16) || anything && s.loose > 0
	s.mu.Unlock()
	if !worth {
		return false
	}
	err := s.takeSnapshot(false)
	if err != nil {
		s.options.Warn(fmt.Errorf("to make room: %w", err))
	}
	return err == nil
}

// smallest is how little room a segment may begin with when the disk is nearly full.
func (s *Store) smallest() int64 { return min(least, s.options.SegmentBytes) }

// begin begins a segment for b and ends the one before. It takes the place of one in which nothing is. extra is what the spare file is to
// hold besides the next snapshot; without any, the segment is as small as can be, and gets what the spare file has too much. When begin fails
// the one before goes on, unless a segment that follows it may be there already.
func (s *Store) begin(b *batch, extra int64) error {
	room := int64(headerSize+len(b.record)) + 2*frameHeaderSize
	if extra > 0 {
		room += s.options.reserve()
	}
	smallest := max(room, s.smallest())
	room = max(room, s.options.SegmentBytes)
	written := int64(0)
	if s.segment != nil {
		written = s.segment.size
	}
	if extra == 0 {
		room = smallest
		s.mu.Lock()
		need := s.need(written, room)
		s.mu.Unlock()
		s.taking.Lock() // what a snapshot is being written to is not cut
		err := s.spare.shrink(need)
		s.taking.Unlock()
		if err != nil {
			return err
		}
	}
	end, err := s.endOfLast(b.first)
	if err != nil {
		return fmt.Errorf("recover after a write that failed: %w", err)
	}
	for {
		next := newSegment(memory.Epoch(s.Epoch()), b.first, room)
		err := next.create(s.disk, end, s.options, func() error {
			s.mu.Lock()
			need := s.need(written, room)
			s.mu.Unlock()
			return s.spare.grow(s.disk, need+extra)
		})
		if err == nil {
			s.follow(next, end)
			return nil
		}
		if s.segment != nil && errors.Is(err, errBirth) {
			s.segment.unsure = true
		}
		if !isFull(err) || room == smallest {
			return err
		}
		room = max(room/2, smallest)
	}
}

// endOfLast returns what the segment of the commits from first on must say of the one before: where it ends, if something stands behind
// that of which nobody knows whether it is on the disk; 0 if nothing does.
func (s *Store) endOfLast(first uint64) (int64, error) {
	old := s.segment
	if old != nil && old.unsure {
		if err := old.check(); err != nil {
			return 0, err
		}
		if old.header.sequence < first {
			return old.size, nil
		}
	}
	if s.mark.name == fileName(first, segmentSuffix) { // it takes the place of one that says it
		return s.mark.end, nil
	}
	return 0, nil
}

// follow makes next the segment that is written, and retires the one before.
func (s *Store) follow(next *segment, end int64) {
	old := s.segment
	s.segment, s.mark = next, mark{next.name, end}
	if old != nil {
		old.file.Truncate(old.size) // only to give room back: what is behind that means nothing
		old.file.Close()
	}
	s.mu.Lock()
	s.room = next.room
	s.files = slices.DeleteFunc(s.files, func(f sealed) bool { return f.name == next.name })
	if old != nil && old.name != next.name {
		s.files = append(s.files, sealed{old.name, old.last, old.size})
		s.sealed += old.size
	}
	if s.sealed >= max(s.options.SnapshotBytes, s.snapshot.size) {
		s.ask()
	}
	s.mu.Unlock()
	if err := s.removeCovered(); err != nil {
		s.options.Warn(err)
	}
}
