package log

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// slowDisk is a directory whose every fdatasync takes a millisecond at least, as on a solid-state disk without a battery.
type slowDisk struct{ *directory }

type slowFile struct{ file }

func (d slowDisk) Create(name string) (file, error) {
	f, err := d.directory.Create(name)
	return slowFile{f}, err
}

func (f slowFile) Sync() error {
	begun := time.Now()
	err := f.file.Sync()
	if left := unix.NsecToTimespec(int64(time.Millisecond - time.Since(begun))); left.Nano() > 0 {
		unix.Nanosleep(&left, nil) // a system call, as fdatasync is, and to the point, as time.Sleep is not
	}
	return err
}

// BenchmarkMillisecondDisk says what sharing an fdatasync is worth where one is slow.
func BenchmarkMillisecondDisk(b *testing.B) {
	for _, n := range []int{1, 2, 16, 64} {
		for _, think := range []time.Duration{0, 30 * time.Microsecond} {
			b.Run(fmt.Sprintf("%d writers, %v between", n, think), func(b *testing.B) {
				directory, err := openDirectory(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				s, err := open(slowDisk{directory}, Options{})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				var left atomic.Int64
				left.Store(int64(b.N))
				var running sync.WaitGroup
				for w := range n {
					running.Go(func() {
						r, err := s.Create(b.Context(), resource("Things", fmt.Sprint(w), 256), state.WriteOptions{})
						for ; err == nil && left.Add(-1) > 0; r, err = s.Update(b.Context(), r, state.WriteOptions{}) {
							for begun := time.Now(); time.Since(begun) < think; { // what a server does for each call
							}
						}
						if err != nil {
							b.Error(err)
						}
					})
				}
				running.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
				syncs, _ := s.Syncs()
				b.ReportMetric(float64(syncs)/float64(b.N), "fsyncs/op")
			})
		}
	}
}
