package mountevents

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// faults hears of errors that file systems find in themselves: FAN_FS_ERROR of fanotify, since Linux 5.16. Its methods may be called by
// several goroutines.
type faults struct {
	mu sync.Mutex // guards the field below
	fd int        // while it is open
}

// errClosed says that nobody hears.
var errClosed = errors.New("not open")

func (f *faults) open() error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("fanotify: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fd = fd
	return nil
}

func (f *faults) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := f.fd
	f.fd = 0
	return unix.Close(fd)
}

// mark has the errors of the file system at target heard, and returns what they name it by. Twice is harmless.
func (f *faults) mark(target string) (unix.Fsid, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd == 0 {
		return unix.Fsid{}, errClosed
	}
	if err := unix.FanotifyMark(f.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_FS_ERROR, unix.AT_FDCWD, target); err != nil {
		return unix.Fsid{}, fmt.Errorf("fanotify: %s: %w", target, err)
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(target, &stat); err != nil {
		return unix.Fsid{}, fmt.Errorf("statfs %s: %w", target, err)
	}
	return stat.Fsid, nil
}

// settles is how long after an error the table is looked at once more: a file system tells of the error first, and becomes read-only then.
const settles = time.Second

// listen hears until ctx is done.
func (f *faults) listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	f.mu.Lock()
	fd := f.fd
	f.mu.Unlock()
	buffer := make([]byte, 4096)
	timeout := -1
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(done.Number()), Events: unix.POLLIN}}
		ready, err := unix.Poll(poll, timeout)
		switch {
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("fanotify: poll: %w", err)
		case poll[1].Revents != 0:
			return nil
		case err == nil && ready == 0:
			timeout = -1
			hear(note{at: doorbell.Now(), what: something})
		case poll[0].Revents != 0:
			n, err := unix.Read(fd, buffer)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil {
				return fmt.Errorf("fanotify: read: %w", err)
			}
			found, whole := decodeFaults(buffer[:n])
			for _, one := range found {
				hear(note{at: doorbell.Now(), what: faulty, fault: one})
			}
			if !whole {
				lost(1) // at least
			}
			timeout = int(settles.Milliseconds())
		}
	}
}
