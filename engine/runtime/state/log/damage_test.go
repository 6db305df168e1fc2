package log

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// whole returns the files of a store that was closed, with a snapshot and some segments after it.
func whole(t testing.TB) map[string][]byte {
	t.Helper()
	d := newTape(nil)
	o := tiny
	o.SegmentBytes, o.SnapshotBytes = reserve+2<<10, 1<<20
	s := mustOpen(t, d, o)
	for i := range 60 {
		if _, err := s.Create(t.Context(), resource("Things", fmt.Sprintf("r%02d", i), 100), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if i == 30 {
			if err := s.takeSnapshot(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Close()
	mustOpen(t, d, o) // which removes what the snapshot has made superfluous
	files, _ := d.cut(len(d.done), survivals()[1], nil)
	for name, data := range files {
		files[name] = withoutZeros(data)
	}
	return files
}

func names(files map[string][]byte, suffix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(name string) bool { return !strings.HasSuffix(name, suffix) })
}

// Wherever a bit is wrong after the store was closed, Open says so and touches nothing.
func TestDamageIsNeverSkipped(t *testing.T) {
	files := whole(t)
	segments, images := names(files, segmentSuffix), names(files, imageSuffix)
	if len(segments) < 3 || len(images) != 1 {
		t.Fatalf("%q and %q are too few files", segments, images)
	}
	newest := segments[len(segments)-1]
	for name, data := range files {
		end := len(data)
		if name == newest {
			end -= frameHeaderSize + len("end") // as if it had not been closed
		}
		for at := 0; at < end; at += 1 + at%5 {
			broken := maps.Clone(files)
			broken[name] = bytes.Clone(data)
			broken[name][at] ^= 1 << (at % 8)
			d := newTape(broken)
			_, err := open(d, tiny)
			damaged := new(DamagedError)
			if !errors.As(err, &damaged) || damaged.File != name {
				t.Fatalf("a wrong bit in byte %d of %s: Open = %v; want a DamagedError of it", at, name, err)
			}
			if damaged.Offset > int64(at) {
				t.Fatalf("a wrong bit in byte %d of %s: Open = %v; want a place before", at, name, err)
			}
			if len(d.done) > 0 {
				t.Fatalf("a wrong bit in byte %d of %s, and Open did %q with a file", at, name, d.done[0].what)
			}
		}
	}
}

func TestAMissingFileIsDamage(t *testing.T) {
	files := whole(t)
	for name := range files {
		broken := maps.Clone(files)
		delete(broken, name)
		_, err := open(newTape(broken), tiny)
		if segments := names(files, segmentSuffix); name == segments[len(segments)-1] {
			continue // a log that ends earlier cannot be told from one that was never longer
		}
		if damaged := new(DamagedError); !errors.As(err, &damaged) {
			t.Errorf("without %s: Open = %v; want a DamagedError", name, err)
		}
	}
}

func TestFilesOfAnotherStoreAreDamage(t *testing.T) {
	files, others := whole(t), whole(t)
	for name := range files {
		mixed := maps.Clone(files)
		mixed[name] = others[name]
		_, err := open(newTape(mixed), tiny)
		if damaged := new(DamagedError); !errors.As(err, &damaged) {
			t.Errorf("with the %s of another store: Open = %v; want a DamagedError", name, err)
		}
	}
}

func TestALaterVersionIsRefused(t *testing.T) {
	for name, data := range whole(t) {
		h := header{magic: string(data[:8])}
		data = h.encode()
		data[8]++
		data = resealed(data)
		if _, err := readHeader(name, h.magic, data); !errors.Is(err, ErrVersion) {
			t.Errorf("%s of version 2: %v; want ErrVersion", name, err)
		}
	}
}

func TestATornTailIsCutAndSaid(t *testing.T) {
	d := newTape(nil)
	s := mustOpen(t, d, tiny)
	if s.Cut() != nil {
		t.Errorf("of a new store %+v is cut", s.Cut())
	}
	for _, id := range []string{"a", "b"} {
		if _, err := s.Create(t.Context(), resource("Things", id, 100), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := d.cut(len(d.done), survivals()[0], nil)
	name := fileName(1, segmentSuffix)
	files[name] = withoutZeros(files[name])
	files[name] = files[name][:len(files[name])-1]
	s = mustOpen(t, newTape(files), tiny)
	if s.Sequence() != 1 || s.Cut() == nil || s.Cut().File != name || s.Cut().Bytes != int64(len(files[name]))-s.Cut().Offset {
		t.Errorf("after commit %d %+v is cut; want the second commit to be", s.Sequence(), s.Cut())
	}
}

// FuzzSegment: whatever a file holds, it is read to a whole record, or damage is named in it.
func FuzzSegment(f *testing.F) {
	files := whole(f)
	for _, name := range names(files, segmentSuffix) {
		f.Add(files[name], true)
		f.Add(files[name][:len(files[name])/2], false)
	}
	f.Fuzz(func(t *testing.T, data []byte, newest bool) {
		name := fileName(1, segmentSuffix)
		data = resealed(data)
		s := &Store{Table: memory.NewTable(memory.Epoch{}, nil)}
		r := &recovery{Store: s, decoder: newDecoder()}
		_, end, err := readSegment(name, data, newest, r.record)
		damaged := new(DamagedError)
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
		if err == nil && (end < headerSize || end > len(data)) || err != nil && damaged.Offset > int64(len(data)) {
			t.Fatalf("of %d bytes it ends at %d: %v", len(data), end, err)
		}
	})
}

// FuzzSnapshot: the same of a snapshot, which has no torn end.
func FuzzSnapshot(f *testing.F) {
	files := whole(f)
	for _, name := range names(files, imageSuffix) {
		f.Add(files[name])
		f.Add(files[name][:len(files[name])/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := readImage(fileName(1, imageSuffix), bytes.NewReader(resealed(data)), func(h header) *memory.Table { return memory.NewTable(h.epoch, nil) })
		if damaged := new(DamagedError); err != nil && !errors.As(err, &damaged) && !errors.Is(err, ErrVersion) {
			t.Fatal(err)
		}
	})
}
