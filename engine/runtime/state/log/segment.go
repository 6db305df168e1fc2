package log

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
//	  ┌──┐   ┌───────────────────────> unsure: nothing is appended, the file is read again and cut
//	clean ───┤
//	         └── full ──> another segment is begun
type segment struct {
	name   string
	file   file
	header header
	seed   uint32
	last   uint64 // sequence of the last commit in it
	size   int64  // of what has been synced
	room   int64  // that was allocated
	unsure bool   // what follows size, nobody knows
}

// least is how little room a segment may begin with when the disk is nearly full.
const least = 64 << 10

// createSegment makes an empty segment for the commits from first on, durably: first its header, then its name.
func createSegment(d disk, epoch memory.Epoch, first uint64, room int64, o Options) (*segment, error) {
	h := header{magic: segmentMagic, epoch: epoch, sequence: first}
	rand.Read(h.salt[:])
	s := &segment{name: fileName(first, segmentSuffix), header: h, seed: h.seed(), last: first - 1, size: headerSize}
	var err error
	s.file, err = born(d, s.name, o, func(f file) error {
		if s.room, err = allocate(f, room); err != nil {
			return err
		}
		_, err := f.WriteAt(h.encode(), 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// allocate makes room for room bytes, or for half as many, and so on, and returns how much it made.
func allocate(f file, room int64) (int64, error) {
	for {
		err := f.Allocate(room)
		if err == nil {
			return room, nil
		}
		if !isFull(err) || room/2 < least {
			return 0, err
		}
		room /= 2
	}
}

// born makes a file with what write puts into it and returns it. It has its name only when all of it is durable.
func born(d disk, name string, o Options, write func(file) error) (file, error) {
	f, err := d.Create(name + unborn)
	if err != nil {
		return nil, err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		d.Remove(name + unborn)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	err = d.Rename(name+unborn, name)
	if err == nil && !o.skipDirectorySync {
		err = d.Sync()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w: %w", name, errBirth, err)
	}
	return f, nil
}

// errBirth says that a file may have its name or not.
var errBirth = errors.New("its name is not sure")

// has says whether there is room for n bytes more.
func (s *segment) has(n int64) bool { return s.size+n <= s.room }

// append writes a sealed record and syncs it. When it fails the segment is unsure.
func (s *segment) append(record []byte, last uint64, o Options) error {
	s.unsure = true
	if _, err := s.file.WriteAt(record, s.size); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
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
	record := append(make([]byte, frameHeaderSize), "end"...)
	seal(record, s.seed, 0, s.last+1)
	s.append(record, s.last, o)
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
