package log

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// Names of files: the sequence of the header, so that they sort, and what they are.
const (
	segmentSuffix = ".log"
	imageSuffix   = ".snapshot"
	unborn        = ".new" // not renamed yet: of no meaning to recovery
)

func fileName(sequence uint64, suffix string) string { return fmt.Sprintf("%020d%s", sequence, suffix) }

// sequenceOf reads a name that fileName made.
func sequenceOf(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && name == fileName(n, suffix)
}

// segment is a file that records are appended to.
//
//	 append       append fails
//	  ┌──┐   ┌──────────────────────> unsure ──┐
//	clean ───┤                                 ├──> another segment is begun, which says where this one ends
//	         └── full ─────────────────────────┘
type segment struct {
	name   string
	file   file
	header header
	seed   uint32
	last   uint64 // sequence of the last commit in it
	size   int64  // of what has been synced
	room   int64  // that was allocated
	zeroed int64  // up to here it has been written
	unsure bool   // what follows size, nobody knows
}

// least is how little room a segment may begin with when the disk is nearly full, if it is not made smaller anyway.
const least = 64 << 10

// newSegment returns a segment for the commits from first on. It has no file yet.
func newSegment(epoch memory.Epoch, first uint64, room int64) *segment {
	h := header{magic: segmentMagic, epoch: epoch, sequence: first}
	rand.Read(h.salt[:])
	return &segment{name: fileName(first, segmentSuffix), header: h, seed: h.seed(), last: first - 1, room: room}
}

// create makes the file of a segment with nothing in it, durably. allocated is called when the file has its room, and may refuse.
// end, if it is not 0, is where the segment before ends, whatever stands behind that.
func (s *segment) create(d disk, end int64, o Options, allocated func() error) error {
	content := s.header.encode()
	if end > 0 {
		mark := binary.AppendUvarint(append(make([]byte, frameHeaderSize), endsAt...), uint64(end))
		seal(mark, s.seed, 0, s.header.sequence)
		content = append(content, mark...)
	}
	f, err := d.Create(s.name + unborn)
	if err != nil {
		return err
	}
	if err = f.Allocate(s.room); err == nil {
		err = allocated()
	}
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	size := int64(len(content))
	zeroed := max(size, min(size+ahead, s.room))
	if err == nil {
		_, err = f.WriteAt(zeros[:zeroed-size], size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		d.Remove(s.name + unborn)
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if err := rename(d, s.name+unborn, s.name, o); err != nil {
		f.Close()
		return err
	}
	s.file, s.size, s.zeroed = f, size, zeroed
	return nil
}

// rename gives a file whose content is durable its name, durably.
func rename(d disk, from, to string, o Options) error {
	err := d.Rename(from, to)
	if err == nil && !o.skipDirectorySync {
		err = d.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", to, errBirth, err)
	}
	return nil
}

// errBirth says that a file may have its name or not.
var errBirth = errors.New("its name is not sure")

// Empty records, which hold no commit, begin with what they say: that the segment was ended, or where the segment before ends.
const (
	ended  = "end"
	endsAt = "before "
)

// endOfBefore returns where a segment says that the one before it ends, 0 if it does not say.
func endOfBefore(name string, f io.ReaderAt) (int64, error) {
	data := make([]byte, headerSize+frameHeaderSize+len(endsAt)+binary.MaxVarintLen64)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	h, err := readHeader(name, segmentMagic, data[:n])
	if err != nil {
		return 0, err
	}
	mark, wrong := readFrame(data[headerSize:n], h.seed())
	digits, is := bytes.CutPrefix(mark.content, []byte(endsAt))
	if wrong != "" || mark.count > 0 || !is {
		return 0, nil
	}
	end, _ := binary.Uvarint(digits)
	return int64(end), nil
}

// ahead is how much is written behind a record that goes beyond what has been: zeros, which are there already. A file system that has given
// room to a file notes of each block when it is first written, and an fdatasync waits for that; blocks that were written before cost it nothing. The first of them are
// written with the header: the fdatasync of the first record would take the file's name to the disk otherwise, whether the directory was synced or not.
const ahead = 256 << 10

var zeros [ahead]byte

// has says whether there is room for n bytes more.
func (s *segment) has(n int64) bool { return s.size+n <= s.room }

// append writes a sealed record and syncs it. When it fails the segment is unsure.
func (s *segment) append(record []byte, last uint64, o Options) error {
	s.unsure = true
	if _, err := s.file.WriteAt(record, s.size); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if end := s.size + int64(len(record)); end > s.zeroed {
		s.zeroed = min(end+ahead, max(end, s.room))
		s.file.WriteAt(zeros[:s.zeroed-end], end) // without them the record is as good
	}
	if !o.skipSync {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	s.size += int64(len(record))
	s.last = last
	s.unsure = false
	return nil
}

// end writes an empty record: what is broken before it was not left unfinished. Without it the segment is as good.
func (s *segment) end(o Options) {
	if s.unsure {
		return
	}
	record := append(make([]byte, frameHeaderSize), ended...)
	seal(record, s.seed, 0, s.last+1)
	s.append(record, s.last, o)
}

// check reads the segment again after a failure, as far as what was acknowledged goes.
func (s *segment) check() error {
	data, err := contents(s.file)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	next := s.header.sequence
	_, _, err = readSegment(s.name, data[:min(int64(len(data)), s.size)], false, func(f frame) error {
		next += uint64(f.count)
		return nil
	})
	if err == nil && next != s.last+1 {
		err = &DamagedError{s.name, int64(len(data)), fmt.Sprintf("commits %d to %d are gone", next, s.last)}
	}
	return err
}

// contents reads the whole file.
func contents(f file) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, err
	}
	return data, nil
}

// readSegment calls each with every record of a segment, in order, and returns where they end. Only the newest segment may end in a
// record that is not whole: a write that was never synced, with nothing behind it. Anything else is a DamagedError.
func readSegment(name string, data []byte, newest bool, each func(frame) error) (h header, end int, err error) {
	h, err = readHeader(name, segmentMagic, data)
	if err != nil {
		return h, 0, err
	}
	if fileName(h.sequence, segmentSuffix) != name {
		return h, 0, &DamagedError{name, 0, fmt.Sprintf("it is the segment of commit %d", h.sequence)}
	}
	seed, next := h.seed(), h.sequence
	for end = headerSize; end < len(data); {
		f, wrong := readFrame(data[end:], seed)
		if wrong != "" {
			if isZero(data[end:]) || newest && !followed(data[end+1:], seed, next) {
				return h, end, nil
			}
			return h, end, &DamagedError{name, int64(end), wrong}
		}
		if f.sequence != next {
			return h, end, &DamagedError{name, int64(end), fmt.Sprintf("it goes on with commit %d, not %d", f.sequence, next)}
		}
		if err := each(f); err != nil {
			return h, end, &DamagedError{name, int64(end), err.Error()}
		}
		next += uint64(f.count)
		end += f.size()
	}
	return h, end, nil
}

// followed looks for the header of a record in data that is as new as sequence. One means that what was found broken before it had been
// synced: the next record is written only then.
func followed(data []byte, seed uint32, sequence uint64) bool {
	for ; len(data) >= frameHeaderSize; data = data[1:] {
		if length := binary.LittleEndian.Uint32(data); length == 0 || uint64(length) > uint64(len(data)-frameHeaderSize) {
			continue
		}
		if n := binary.LittleEndian.Uint64(data[8:]); n < sequence || n > sequence+1<<32 {
			continue
		}
		if crc32.Update(seed, castagnoli, data[:20]) == binary.LittleEndian.Uint32(data[20:]) {
			return true
		}
	}
	return false
}

func isZero(data []byte) bool { return len(withoutZeros(data)) == 0 }

// withoutZeros returns data without the zeros at its end.
func withoutZeros(data []byte) []byte { return bytes.TrimRight(data, "\x00") }
