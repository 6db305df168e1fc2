package kernelevents

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
)

// log is the kernel's log, from the oldest record on that it still holds.
type log struct {
	fd   int
	path string
}

// openLog opens /dev/kmsg.
func openLog(path string) (*log, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &log{fd, path}, nil
}

func (l *log) Close() error { return unix.Close(l.fd) }

// longest is more than a record has: CONSOLE_EXT_LOG_MAX of kernel/printk.
const longest = 8 << 10

// Listen hears warnings and worse. It sleeps in the kernel while the log does not grow.
func (l *log) Listen(ctx context.Context, hear func(record), lost func(uint64)) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	buffer := make([]byte, longest)
	for next := uint64(0); ; {
		n, err := unix.Read(l.fd, buffer)
		switch {
		case err == unix.EAGAIN:
			poll := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(done.Number()), Events: unix.POLLIN}}
			if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("poll %s: %w", l.path, err)
			}
			if poll[1].Revents != 0 {
				return nil
			}
		case err == unix.EPIPE, err == unix.EINTR: // the oldest records have made room before they were read; the next read goes on behind them
		case err != nil:
			return fmt.Errorf("read %s: %w", l.path, err)
		default:
			r, ok := parse(string(buffer[:n]))
			if !ok {
				continue
			}
			if next > 0 && r.sequence > next {
				lost(r.sequence - next)
			}
			next = r.sequence + 1
			if r.severity() <= warning {
				hear(r)
			}
		}
	}
}
