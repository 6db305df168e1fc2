package log_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// fileSystems are those whose fdatasync means something, by the number that statfs gives.
var fileSystems = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs"}

// realDisk returns a directory on a disk, and what file system it has. A figure from tmpfs would be worthless.
func realDisk(b *testing.B) (dir, fileSystem string) {
	dir = b.TempDir()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		b.Fatal(err)
	}
	fileSystem, ok := fileSystems[int64(s.Type)]
	if !ok {
		b.Skipf("TMPDIR is on a file system of type %#x, which is not a disk's", s.Type)
	}
	return dir, fileSystem
}

// thing returns a resource with 256 bytes of content.
func thing(id string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "default", Type: "Things.test.cosi.dev", Id: id},
		Spec:     &resourcepb.Spec{ProtoSpec: make([]byte, 256)},
	}
}

// hammer updates one resource from each of n writers until b has had enough.
func hammer(b *testing.B, s state.State, n int) {
	var left atomic.Int64
	left.Store(int64(b.N))
	all := make([]*resourcepb.Resource, n)
	for i := range all {
		var err error
		if all[i], err = s.Create(b.Context(), thing(fmt.Sprintf("%s-%d", b.Name(), i)+fmt.Sprint(b.N)), state.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	var running sync.WaitGroup
	b.ResetTimer()
	for _, r := range all {
		running.Go(func() {
			for left.Add(-1) >= 0 {
				var err error
				if r, err = s.Update(context.Background(), r, state.WriteOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
}

// BenchmarkUpdate writes to the store on a disk and, beside it, to the one in memory.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("durable, %d writers", n), func(b *testing.B) {
			dir, fileSystem := realDisk(b)
			s, err := log.Open(dir, log.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			before, _ := s.Syncs()
			hammer(b, s, n)
			after, own := s.Syncs()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			b.ReportMetric(float64(after-before)/float64(b.N), "fsyncs/op")
			b.ReportMetric(float64(own.Microseconds()), "own-p50-µs")
			b.ReportMetric(float64(fdatasync(b, dir).Microseconds()), fileSystem+"-fdatasync-p50-µs")
		})
		b.Run(fmt.Sprintf("memory, %d writers", n), func(b *testing.B) {
			hammer(b, memory.New(memory.Options{}), n)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}

// fdatasync measures the median of what a write of 4 KiB waits for.
func fdatasync(b *testing.B, dir string) time.Duration {
	fd, err := unix.Open(dir+"/probe", unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	took := make([]time.Duration, 100)
	for i := range took {
		if _, err := unix.Pwrite(fd, make([]byte, 4096), int64(i)*4096); err != nil {
			b.Fatal(err)
		}
		begun := time.Now()
		if err := unix.Fdatasync(fd); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(begun)
	}
	slices.Sort(took)
	return took[len(took)/2]
}
