package log

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// writeLarge writes a store with a snapshot of n resources of 256 bytes content, and returns their encoded size.
func writeLarge(t testing.TB, d disk, n int) (encoded int) {
	t.Helper()
	s, err := open(d, Options{skipSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range n {
		r, err := s.Create(t.Context(), resource("Things", fmt.Sprintf("resource-%06d", i), 256), state.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		encoded += proto.Size(r)
	}
	if err := s.takeSnapshot(true); err != nil {
		t.Fatal(err)
	}
	return encoded
}

// BenchmarkStart opens a store with a snapshot of 100,000 resources, and says how much memory it takes for each byte of them.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	const n = 100_000
	d, err := openDirectory(dir)
	if err != nil {
		b.Fatal(err)
	}
	encoded := writeLarge(b, d, n)
	b.ResetTimer()
	for b.Loop() {
		before := heap()
		d, err := openDirectory(dir)
		if err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		s, err := open(d, Options{})
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(begun)
		b.ReportMetric(took.Seconds(), "s/start")
		b.ReportMetric(float64(heap()-before)/float64(encoded), "bytes/encoded-byte")
		if s.Sequence() != n {
			b.Fatalf("it begins after commit %d; want %d", s.Sequence(), n)
		}
		s.Close()
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsLessThanThreeTimesWhatIsStored(t *testing.T) {
	dir := t.TempDir()
	d, err := openDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	encoded := writeLarge(t, d, 20_000)
	before := heap()
	if d, err = openDirectory(dir); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, d, Options{})
	defer s.Close()
	if got := float64(heap()-before) / float64(encoded); got >= 3 {
		t.Errorf("a store takes %.1f bytes of memory for each byte stored; want less than 3", got)
	}
}
