package log

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
)

// batch is the commits that share a record and an fdatasync. Who begins one leads it: it waits for the batch before, closes this one
// to others and writes it.
//
//	forming ──(the batch before is done)──> writing ──> applied ──> done
//	   └───────────(the batch before failed)──> failed <──┘
type batch struct {
	before  *batch
	first   uint64 // sequence
	changes []change.Change
	record  []byte
	leaving bool // each of its writes takes something away
	writers int  // that have joined
	want    int  // if set, full is closed when that many have joined
	full    chan struct{}
	done    chan struct{}
	err     error // of all its writes; set before done is closed
}

// pending is a resource as it will be after a batch.
type pending struct {
	resource *resourcepb.Resource // nil: destroyed
	batch    *batch
}

// write decides and, unless it is a dry run, commits one change and what goes along with it. An answer that depends on what is pending
// waits until that is durable.
//
// On a full disk a write that takes something away may fail because of the company that it was in. Then it goes again, before all that do
// not.
func (s *Store) write(p state.Pointer, o state.WriteOptions, decide func(*resourcepb.Resource) (change.Change, error)) (*resourcepb.Resource, error) {
	c, b, err := s.try(p, o, decide)
	if crowded(c, b, err) {
		s.mu.Lock()
		s.deferred++
		s.mu.Unlock()
		for crowded(c, b, err) {
			c, b, err = s.try(p, o, decide)
		}
		s.mu.Lock()
		s.deferred--
		s.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return c.After, nil
}

// crowded says that c might have been committed, had others not been in the batch, or in one before.
func crowded(c change.Change, b *batch, err error) bool {
	return b != nil && errors.Is(err, state.ErrNoSpace) && !c.None() && leaves(c) && !b.leaving
}

// try is one try of write, and returns the batch that it had to wait for.
func (s *Store) try(p state.Pointer, o state.WriteOptions, decide func(*resourcepb.Resource) (change.Change, error)) (change.Change, *batch, error) {
	s.mu.Lock()
	c, b, leads, err := s.join(p, o, decide)
	s.mu.Unlock()
	if b != nil {
		if leads {
			s.commit(b)
		}
		<-b.done
		if b.err != nil {
			err = b.err
		}
	}
	return c, b, err
}

// join decides a change and puts it into a batch. It returns the batch to wait for, if any, and whether the caller leads it. s.mu is held.
func (s *Store) join(p state.Pointer, o state.WriteOptions, decide func(*resourcepb.Resource) (change.Change, error)) (c change.Change, b *batch, leads bool, err error) {
	if s.closed {
		return c, nil, false, ErrClosed
	}
	current, on := s.current(p)
	c, err = decide(current)
	if err == nil {
		err = s.Room(c, s.options.Most) // what is pending does not count: a batch may go over
	}
	if err != nil || o.DryRun || c.None() {
		return c, on, false, err
	}
	if s.deferred > 0 && !leaves(c) {
		return c, on, false, fmt.Errorf("%w: writes that take something away go first", state.ErrNoSpace)
	}
	all, err := change.All(c, o, func(p state.Pointer) *resourcepb.Resource {
		r, b := s.current(p)
		if b != nil && (on == nil || b.first > on.first) {
			on = b
		}
		return r
	}, s.options.Now())
	if err != nil {
		return c, on, false, err
	}
	record, err := appendChanges(s.forming, all)
	if err != nil {
		return c, on, false, err
	}
	if leads = s.forming == nil; leads {
		s.forming = &batch{before: s.writing, first: s.next, leaving: true, done: make(chan struct{})}
	}
	b = s.forming
	b.leaving = b.leaving && leaves(c)
	b.record = record
	b.changes = append(b.changes, all...)
	if b.writers++; b.writers == b.want {
		close(b.full)
	}
	s.next += uint64(len(all))
	for _, c := range all {
		s.pending[c.Pointer()] = pending{c.After, b}
	}
	return c, b, leads, nil
}

// current returns a resource as it will be when everything pending is done, and the batch that this depends on.
func (s *Store) current(p state.Pointer) (*resourcepb.Resource, *batch) {
	if pending, ok := s.pending[p]; ok {
		return pending.resource, pending.batch
	}
	return s.Lookup(p), nil
}

// maxRecord bounds a batch: what is larger than that alone is refused.
const maxRecord = 1 << 30

// appendChanges returns the record of b, which may be nil, with all added. b stays as it is.
func appendChanges(b *batch, all []change.Change) (record []byte, err error) {
	if b != nil {
		record = b.record
	} else {
		record = make([]byte, frameHeaderSize, 4<<10)
	}
	for _, c := range all {
		if record, err = appendChange(record, c); err != nil {
			return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
		}
	}
	if len(record) > maxRecord {
		return nil, fmt.Errorf("%w: the writes at this moment are larger than %d bytes", state.ErrLimit, maxRecord)
	}
	return record, nil
}

// commit writes b, which the caller leads, and all that has joined it meanwhile.
func (s *Store) commit(b *batch) {
	early := 0
	if b.before != nil {
		<-b.before.done
		b.before = nil
		s.mu.Lock()
		early = b.writers
		s.mu.Unlock()
	}
	s.gather(b, early)
	s.mu.Lock()
	if b.err != nil { // by the batch before
		s.mu.Unlock()
		return
	}
	s.forming, s.writing = nil, b
	s.mu.Unlock()

	begun := time.Now()
	err := s.append(b)

	s.mu.Lock()
	ended := time.Now()
	s.company.took(begun, ended, b.writers)
	s.took[s.syncs%int64(len(s.took))] = ended.Sub(begun)
	s.syncs++
	if err != nil {
		s.fail(b, err)
		s.mu.Unlock()
		return
	}
	s.loose += int64(len(b.record))
	wakes := make([]func(), len(b.changes))
	for i, c := range b.changes {
		wakes[i] = s.Apply(b.first+uint64(i), c)
		if c.After == nil {
			s.loose += int64(proto.Size(c.Before))
		}
		if p := c.Pointer(); s.pending[p].batch == b {
			delete(s.pending, p)
		}
	}
	if s.writing == b {
		s.writing = nil
	}
	s.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
	close(b.done)
}

// fail drops all that is pending: b, and what was checked against it. s.mu is held.
func (s *Store) fail(b *batch, err error) {
	if isFull(err) {
		err = fmt.Errorf("%w: %w", state.ErrNoSpace, err)
	}
	s.next = b.first
	clear(s.pending)
	if after := s.forming; after != nil {
		after.leaving = after.leaving && b.leaving
		after.err = fmt.Errorf("checked against a write that failed: %w", err)
		close(after.done)
	}
	s.forming, s.writing = nil, nil
	b.err = err
	close(b.done)
}

// append writes the record of b and syncs it. Only the leader whose turn it is calls it.
func (s *Store) append(b *batch) error {
	if err := s.makeRoom(b); err != nil {
		return err
	}
	seal(b.record, s.segment.seed, uint32(len(b.changes)), b.first)
	return s.segment.append(b.record, b.first+uint64(len(b.changes))-1, s.options)
}

// leaves says that c takes something away, or is a step to that.
func leaves(c change.Change) bool {
	return c.After == nil || c.After.GetMetadata().GetPhase() == state.PhaseTearingDown
}
