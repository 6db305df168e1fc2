package memory_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// full returns a store with n resources of one kind.
func full(b *testing.B, n int) *memory.Store {
	s := memory.New(memory.Options{})
	for i := range n {
		write(b, s, line(fmt.Sprintf("id-%06d", i), "content"))
	}
	return s
}

func BenchmarkGet(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("of %d", n), func(b *testing.B) {
			s, p := full(b, n), state.Pointer{Kind: logs, ID: "id-000005"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("of %d", n), func(b *testing.B) {
			s := full(b, n)
			b.ReportAllocs()
			for b.Loop() {
				if all, err := s.List(b.Context(), logs, state.Query{}); err != nil || len(all) != n {
					b.Fatal(len(all), err)
				}
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	s := memory.New(memory.Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Create(b.Context(), line(fmt.Sprintf("id-%09d", (i*7919)%1_000_000_007), "content"), state.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("of %d", n), func(b *testing.B) {
			s := full(b, n)
			r := s.Lookup(state.Pointer{Kind: logs, ID: "id-000005"})
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if r, err = s.Update(b.Context(), r, state.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An operation is one update that every watcher has seen.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("to %d", n), func(b *testing.B) {
			s := full(b, 1)
			r := s.Lookup(state.Pointer{Kind: logs, ID: "id-000000"})
			var all sync.WaitGroup
			seen := make(chan struct{}, n)
			last := []byte("last")
			for range n {
				w := watch(b, s, state.WatchRequest{Kind: logs})
				all.Go(func() {
					for e := w.next(b); !bytes.Equal(e.GetResource().GetSpec().GetProtoSpec(), last); e = w.next(b) {
						seen <- struct{}{}
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if r, err = s.Update(b.Context(), r, state.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
				for range n {
					<-seen
				}
			}
			write(b, s, line("id-000000", string(last)))
			all.Wait()
		})
	}
}
