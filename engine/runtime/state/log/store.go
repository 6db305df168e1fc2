// Package log keeps resources in a directory, for the namespaces whose contents outlive the runtime. The runtime opens one on the STATE
// partition, or where --data says.
//
// A commit is decided by package change, appended to a log, and applied to a memory.Table, which serves all reads:
//
//	write ──> checked against what is pending ──> joins a batch ──> one write, one fdatasync ──> applied, visible ──> acknowledged
//
// What is acknowledged survives the loss of power. What is not is there whole after recovery, or not at all. Writers that come while the
// disk is busy form the next batch and share its fdatasync, however many they are; a writer alone waits for one fdatasync and for nothing
// else. Nobody sees a write before it is durable.
//
// # Files
//
// N.log holds the commits from number N on, a record for each batch. N.snapshot holds what there was after commit N: the resources and the
// bounded history that watches go back to. A snapshot is made in the background when the log has grown by as much as the last
// snapshot holds, and the segments that it covers are removed. Files get their names when their first content is durable. The epoch stands
// in every file, so that bookmarks outlive the process.
//
// # Recovery
//
// Open reads the newest snapshot and the segments after it. The end of the newest segment may be a record that is not whole, a write
// that nobody was told of: it is cut off. Everything else that is not as it was written is a DamagedError, and then no file is touched.
// The newest segment is written again: what the process before could not sync is shown by the kernel, and may not be on the disk.
//
// # Failures
//
// When a write or an fdatasync fails, all writes of that batch fail and so do those that were checked against it: what became of them is
// known only to the disk. The file is given up, an fdatasync is never tried twice: before the next write the segment is read again as far as
// it was acknowledged, and the log goes on in another one, which says where the one before ends.
//
// # A full disk
//
// Writes fail with state.ErrNoSpace, but for those that take something away; reads and watches go on. The room for the next snapshot is
// kept at any moment, so that what was taken away, and the log that a snapshot covers, become room whenever a write needs some. A snapshot
// for which the history is too much has none: a watch that goes back to before it, after the next start, finds its bookmark expired. See room.go.
package log

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// Options of a store. The zero value is fine.
type Options struct {
	// Now is the clock that created and updated are taken from.
	Now func() time.Time
	// Limits bound the history of a kind; nil: memory.DefaultLimits for each. EventsOfID is not kept beyond the kind's history when the
	// store is opened again.
	Limits func(state.Kind) memory.Limits
	// Most is how many resources of a kind there may be, of those written from now on; nil: any number.
	Most func() int
	// SegmentBytes is the size of a segment; 0: 4 MiB.
	SegmentBytes int64
	// SnapshotBytes is how much log there is at least between two snapshots; 0: twice the size of a segment.
	SnapshotBytes int64
	// Warn is told what goes wrong in the background; nil: nobody is.
	Warn func(error)

	// These two make a store that loses data, for tests of the tests.
	skipSync, skipDirectorySync bool
}

func (o Options) orDefault() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 4 << 20
	}
	if o.SnapshotBytes <= 0 {
		o.SnapshotBytes = 2 * o.SegmentBytes
	}
	return o
}

// Store is a state.State in a directory. It is safe for concurrent use. One process at a time has it open.
type Store struct {
	*memory.Table
	disk    disk
	options Options
	cut     *Cut
	due     chan struct{} // holds one: a snapshot is to be made
	others  *yielder

	// These two belong to the leader of the batch that is being written. segment is what it appends to, nil: one is to be begun.
	segment *segment
	mark    mark

	taking sync.Mutex // a snapshot
	spare  spare

	mu       sync.Mutex // held from the check of a write until it has joined a batch; guards the fields below
	next     uint64     // sequence of the next change
	forming  *batch     // takes changes
	writing  *batch     // is with the disk, or waits for its turn to be
	pending  map[state.Pointer]pending
	company  company
	closed   bool
	syncs    int64               // of batches
	took     [1000]time.Duration // the last of them
	deferred int                 // writes that take something away and go before all others, which the disk has no room for
	files    []sealed            // segments that are no longer written
	sealed   int64               // bytes in them since the last snapshot
	loose    int64               // bytes that another snapshot would give back, at least
	room     int64               // of the segment that is written, 0 if there is none
	snapshot stored              // the newest
}

// mark is what a segment says of the one before it: see endOfBefore.
type mark struct {
	name string
	end  int64
}

// sealed is a segment that is no longer written, the last commit in it and its size.
type sealed struct {
	name string
	last uint64
	size int64
}

// stored is a snapshot on the disk. One without a name is none.
type stored struct {
	name    string
	last    uint64 // commit that it is sure to hold
	size    int64
	history bool // it has one, so that without it it would be smaller
}

var _ state.State = (*Store)(nil)

// Open opens the store in a directory, or makes one. It fails with ErrLocked when another process has it, a DamagedError when a file is
// damaged, and ErrVersion when a file is of a later version.
func Open(path string, o Options) (*Store, error) {
	d, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	s, err := open(d, o)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Cut is the end of a segment that Open cut off, because it was not whole.
type Cut struct {
	File          string
	Offset, Bytes int64
}

// Cut returns what Open cut off, nil if everything was whole.
func (s *Store) Cut() *Cut { return s.cut }

// Syncs returns how many fdatasyncs writers have waited for, and how long the one in the middle of the last thousand took, the write
// before it included.
func (s *Store) Syncs() (n int64, p50 time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := slices.Clone(s.took[:min(s.syncs, int64(len(s.took)))])
	if len(last) == 0 {
		return 0, 0
	}
	slices.Sort(last)
	return s.syncs, last[len(last)/2]
}

// Close waits for writes that have begun and gives the directory back. Later writes fail with ErrClosed; reads go on. Run must have
// ended.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	last := s.forming
	if last == nil {
		last = s.writing
	}
	s.mu.Unlock()
	if last != nil {
		<-last.done
	}
	if s.segment != nil {
		s.segment.end(s.options)
		s.segment.file.Close()
		s.segment = nil
	}
	s.spare.drop(s.disk)
	s.others.close()
	return s.disk.Close()
}

// Create stores r. See state.State.
func (s *Store) Create(_ context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(state.PointerTo(r), o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Create(current, r, o, s.options.Now())
	})
}

// Update replaces a resource. See state.State.
func (s *Store) Update(_ context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(state.PointerTo(r), o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Update(current, r, o, s.options.Now())
	})
}

// Teardown moves a resource to the phase tearingDown. See state.State.
func (s *Store) Teardown(_ context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	return s.write(p, o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Teardown(current, o, s.options.Now())
	})
}

// Destroy removes a resource. See state.State.
func (s *Store) Destroy(_ context.Context, p state.Pointer, o state.WriteOptions) error {
	_, err := s.write(p, o, func(current *resourcepb.Resource) (change.Change, error) {
		return change.Destroy(current, o)
	})
	return err
}
