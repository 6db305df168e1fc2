package log

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// connected returns a socket that the scheduler waits for, and the other end, which it knows nothing of.
func connected(t *testing.T) (net.Conn, int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(ends[0]), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, ends[1]
}

func TestWhoHasBeenWrittenToGoesFirst(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	y, err := newYielder()
	if err != nil {
		t.Fatal(err)
	}
	defer y.close()
	var heard atomic.Int64
	var others []int
	var running sync.WaitGroup
	for range 50 {
		conn, other := connected(t)
		others = append(others, other)
		running.Go(func() {
			for {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					return
				}
				heard.Add(1)
			}
		})
	}
	var at int64
	const rounds = 100
	for range rounds {
		y.yield() // let them begin to wait
		before := heard.Load()
		for _, fd := range others {
			if _, err := unix.Write(fd, []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		y.yield()
		at += heard.Load() - before
	}
	if all := int64(rounds * len(others)); at < all*3/4 { // the scheduler's fairness lets the caller go on earlier at times
		t.Errorf("%d of %d had been heard of when yield returned; want nearly all", at, all)
	}
	for _, fd := range others {
		unix.Close(fd)
	}
	running.Wait()
}

// Writers whose calls wait in sockets while the only processor is with the disk share the next fdatasync.
func TestCallsThatWaitInSocketsShareAnFdatasync(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	d, err := openDirectory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const writers, rounds = 16, 50
	var others []int
	var running sync.WaitGroup
	for w := range writers {
		conn, other := connected(t)
		others = append(others, other)
		running.Go(func() {
			call := make([]byte, 1)
			for round := 0; ; round++ {
				if _, err := conn.Read(call); err != nil {
					return
				}
				if _, err := s.Create(t.Context(), resource("Things", fmt.Sprintf("%d-%d", w, round), 10), state.WriteOptions{}); err != nil {
					t.Error(err)
				}
				conn.Write(call)
			}
		})
	}
	for range rounds {
		for _, fd := range others {
			if _, err := unix.Write(fd, []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		s.others.yield()
		for _, fd := range others {
			if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, fd := range others {
		unix.Close(fd)
	}
	running.Wait()
	if n, _ := s.Syncs(); n > 2*rounds {
		t.Errorf("%d rounds of %d calls cost %d fdatasyncs; want about one for each round", rounds, writers, n)
	}
}
