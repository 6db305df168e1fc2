package log

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// yielder lets others run first: the leader of a batch, those who may join it, and who makes a snapshot, the writers.
//
// runtime.Gosched lets those run that can. Whom the network has something for is not among them until somebody asks the kernel, which the
// scheduler does when nobody else can run: a runtime with one processor would write each change alone, and find all the others when
// it comes back from the disk. A timer that waits for them takes up to a millisecond (Go 1.26, runtime/netpoll_epoll.go). So a yielder waits like
// them, for a file of the kernel's that has already something for it.
type yielder struct {
	event *os.File // an eventfd
	raw   syscall.RawConn
}

// one is what an eventfd is given to be counted.
var one = binary.NativeEndian.AppendUint64(nil, 1)

func newYielder() (*yielder, error) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	y := &yielder{event: os.NewFile(uintptr(fd), "eventfd")}
	if y.raw, err = y.event.SyscallConn(); err != nil {
		y.event.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return y, nil
}

// yield returns when nearly all have run that could when it was called, and whom the network had something for: the scheduler takes the caller
// earlier once in 61 times. It is a matter of microseconds when nobody is there. One of several callers goes at a time.
func (y *yielder) yield() {
	var count [8]byte
	signalled := false
	y.raw.Read(func(fd uintptr) (done bool) {
		if !signalled {
			// Not earlier: before this the runtime forgets what it has heard of the file.
			signalled = true
			_, err := unix.Write(int(fd), one)
			return err != nil
		}
		unix.Read(int(fd), count[:])
		return true
	})
	runtime.Gosched() // the kernel may have named it before others
}

func (y *yielder) close() error { return y.event.Close() }
