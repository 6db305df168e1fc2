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

	newest file   // segment, nil if there is none
	data   []byte // its whole records, and what is before them
	torn   int64  // bytes behind them
	ended  bool   // its last record says that it was ended
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
	if s.others, err = newYielder(); err != nil {
		return nil, err
	}
	s.loose = s.sealed
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
	r.snapshot = stored{name, r.image.header.sequence, r.image.size, true}
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
		following := ""
		if i < len(r.segments)-1 {
			following = r.segments[i+1]
		}
		var err error
		if next, err = r.readSegment(name, following); err != nil {
			return err
		}
	}
	if r.image != nil && next <= r.image.last {
		last := r.segments[len(r.segments)-1]
		return &DamagedError{last, int64(len(r.data)), fmt.Sprintf("it ends with commit %d, and the snapshot holds %d", next-1, r.image.last)}
	}
	r.next = next
	r.Advance(next - 1)
	return nil
}

// readSegment applies what the snapshot does not have and returns the sequence that the segment that follows begins with. The newest has
// no other following it.
func (r *recovery) readSegment(name, following string) (next uint64, err error) {
	f, err := r.disk.Open(name)
	if err != nil {
		return 0, err
	}
	if following == "" {
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
	if following != "" {
		if data, err = r.upToItsEnd(data, following); err != nil {
			return 0, err
		}
	}
	next = h.sequence
	_, end, err := readSegment(name, data, following == "", func(f frame) error {
		next += uint64(f.count)
		return r.record(f)
	})
	r.files = append(r.files, sealed{name, next - 1, int64(end)})
	r.sealed += int64(end)
	r.data, r.torn = data[:end], int64(len(withoutZeros(data[end:])))
	return next, err
}

// upToItsEnd returns what belongs to a segment, if the one that follows says where it ends.
func (r *recovery) upToItsEnd(data []byte, following string) ([]byte, error) {
	f, err := r.disk.Open(following)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := endOfBefore(following, f)
	if err != nil || end == 0 {
		return data, err
	}
	r.Store.mark = mark{following, end}
	return data[:min(end, int64(len(data)))], nil
}

// record applies the changes of a record, except those that the snapshot has.
func (r *recovery) record(f frame) error {
	r.ended = f.count == 0 && string(f.content) == ended
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
	return r.begin(&batch{first: 1}, r.emergency())
}

// cutTail ends the newest segment where its last whole record does, durably: from now on anything behind that would be damage. All of it is
// written again: what the last process could not sync, the kernel may show and the disk not have.
func (r *recovery) cutTail() error {
	end := int64(len(r.data))
	size, err := r.newest.Size()
	if err != nil || size == end && r.ended {
		return err
	}
	if _, err := r.newest.WriteAt(r.data, 0); err != nil {
		return err
	}
	if err := r.newest.Truncate(end); err != nil {
		return err
	}
	if r.torn > 0 {
		r.Store.cut = &Cut{File: r.segments[len(r.segments)-1], Offset: end, Bytes: r.torn}
	}
	return r.newest.Sync()
}
