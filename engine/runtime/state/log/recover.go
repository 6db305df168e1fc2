package log

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// recovery is a store being opened.
type recovery struct {
	*Store
	image    *image   // nil if there is no snapshot
	segments []string // in order
	garbage  []string // what the snapshot has made superfluous, or never got its name
	decoder  *decoder

	newest file  // segment, nil if there is none
	end    int64 // of its whole records
	torn   int64 // bytes behind them
}

// open reads what is on d. It touches no file before all have been found whole.
func open(d disk, o Options) (*Store, error) {
	s := &Store{disk: d, options: o.orDefault(), due: make(chan struct{}, 1), pending: map[state.Pointer]pending{}}
	r := &recovery{Store: s, decoder: newDecoder()}
	err := r.read()
	if err == nil {
		err = r.mend()
	}
	if r.newest != nil {
		r.newest.Close()
	}
	if err != nil {
		return nil, err
	}
	if s.sealed >= max(s.options.SnapshotBytes, s.snapshot.size) || len(s.files) > maxSegments {
		s.ask()
	}
	return s, nil
}

// read finds the files and reads them.
func (r *recovery) read() error {
	names, err := r.disk.Names()
	if err != nil {
		return err
	}
	if newest := r.sort(names); newest != "" {
		if err := r.readImage(newest); err != nil {
			return err
		}
	}
	return r.readSegments()
}

// sort tells the files apart and returns the newest snapshot, "" if there is none.
func (r *recovery) sort(names []string) (newest string) {
	slices.Sort(names)
	for _, name := range names {
		if _, ok := sequenceOf(name, segmentSuffix); ok {
			r.segments = append(r.segments, name)
		}
		if _, ok := sequenceOf(name, imageSuffix); ok {
			if newest != "" {
				r.garbage = append(r.garbage, newest)
			}
			newest = name
		}
		if strings.HasSuffix(name, unborn) {
			r.garbage = append(r.garbage, name)
		}
	}
	return newest
}

func (r *recovery) newTable(h header) *memory.Table {
	r.Table = memory.NewTable(h.epoch, r.options.Limits)
	return r.Table
}

func (r *recovery) readImage(name string) error {
	f, err := r.disk.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if r.image, err = readImage(name, f, r.newTable); err != nil {
		return err
	}
	r.snapshot = stored{name, r.image.header.sequence, r.image.size}
	return nil
}

// readSegments applies the segments from the one on that holds the commit after the snapshot.
func (r *recovery) readSegments() error {
	next := r.snapshot.last + 1
	for len(r.segments) > 1 {
		if first, _ := sequenceOf(r.segments[1], segmentSuffix); first > next {
			break
		}
		r.garbage = append(r.garbage, r.segments[0])
		r.segments = r.segments[1:]
	}
	if len(r.segments) == 0 {
		if r.image != nil {
			return &DamagedError{r.snapshot.name, r.snapshot.size, "the segment that follows it is missing"}
		}
		return nil
	}
	for i, name := range r.segments {
		first, _ := sequenceOf(name, segmentSuffix)
		if i == 0 {
			next = min(first, next)
		}
		if first != next {
			return &DamagedError{name, 0, fmt.Sprintf("it begins with commit %d, and %d is missing", first, next)}
		}
		var err error
		if next, err = r.readSegment(name, i == len(r.segments)-1); err != nil {
			return err
		}
	}
	if r.image != nil && next <= r.image.last {
		last := r.segments[len(r.segments)-1]
		return &DamagedError{last, r.end, fmt.Sprintf("it ends with commit %d, and the snapshot holds %d", next-1, r.image.last)}
	}
	r.next = next
	r.Advance(next - 1)
	return nil
}

// readSegment applies what the snapshot does not have and returns the sequence that the next segment begins with.
func (r *recovery) readSegment(name string, newest bool) (next uint64, err error) {
	f, err := r.disk.Open(name)
	if err != nil {
		return 0, err
	}
	if newest {
		r.newest = f
	} else {
		defer f.Close()
	}
	data, err := contents(f)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	h, err := readHeader(name, segmentMagic, data)
	if err != nil {
		return 0, err
	}
	if r.Table == nil {
		r.newTable(h)
	}
	if epoch := memory.Epoch(r.Epoch()); h.epoch != epoch {
		return 0, &DamagedError{name, 0, fmt.Sprintf("it is of the store %x, not %x", h.epoch, epoch)}
	}
	next = h.sequence
	_, end, err := readSegment(name, data, newest, func(f frame) error {
		next += uint64(f.count)
		return r.record(f)
	})
	r.files = append(r.files, sealed{name, next - 1})
	r.sealed += int64(end)
	r.end, r.torn = int64(end), int64(len(withoutZeros(data[end:])))
	return next, err
}

// record applies the changes of a record, except those that the snapshot has.
func (r *recovery) record(f frame) error {
	if f.count == 0 || f.sequence+uint64(f.count)-1 <= r.snapshot.last {
		return nil
	}
	content := f.content
	for i := range uint64(f.count) {
		p, after, rest, err := r.decoder.change(content)
		if err != nil {
			return err
		}
		content = rest
		if r.has(p.Kind, f.sequence+i) {
			continue
		}
		if err := replay(r.Table, f.sequence+i, p, after); err != nil {
			return err
		}
	}
	if len(content) > 0 {
		return fmt.Errorf("%w: %d bytes are left", errContent, len(content))
	}
	return nil
}

// has says whether the snapshot has a change.
func (r *recovery) has(k state.Kind, sequence uint64) bool {
	return r.image != nil && sequence <= max(r.snapshot.last, r.image.through[k])
}

// mend cuts off what was not whole and removes what is of no use. A new store gets its epoch.
func (r *recovery) mend() error {
	if r.newest != nil {
		if err := r.cutTail(); err != nil {
			return fmt.Errorf("cut: %w", err)
		}
	}
	for _, name := range r.garbage {
		if err := r.disk.Remove(name); err != nil {
			return err
		}
	}
	if r.Table != nil {
		return nil
	}
	var h header
	rand.Read(h.epoch[:]) // never fails: see its documentation
	r.newTable(h)
	r.next = 1
	return r.begin(1, r.options.SegmentBytes)
}

// cutTail ends the newest segment where its last whole record does, durably: from now on anything behind that would be damage.
func (r *recovery) cutTail() error {
	size, err := r.newest.Size()
	if err != nil || size == r.end {
		return err
	}
	if err := r.newest.Truncate(r.end); err != nil {
		return err
	}
	if r.torn > 0 {
		r.Store.cut = &Cut{File: r.segments[len(r.segments)-1], Offset: r.end, Bytes: r.torn}
	}
	return r.newest.Sync()
}
