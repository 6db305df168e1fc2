// Package fromkernel receives what the kernel sends over a netlink socket, for plugins that hear of changes by it.
package fromkernel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
)

// Receive calls take for every message of the kernel's, of at most size bytes, until ctx is done, then returns nil. It calls lost when the kernel had to
// drop one or more, and sleeps in the kernel otherwise. What other processes send is not taken. take does not keep the message.
func Receive(ctx context.Context, fd, size int, take func(message []byte), lost func()) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	message := make([]byte, size)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(done.Number()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if poll[1].Revents != 0 {
			return nil
		}
		if poll[0].Revents == 0 {
			continue
		}
		n, from, err := unix.Recvfrom(fd, message, 0)
		switch {
		case err == unix.ENOBUFS:
			lost()
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("receive: %w", err)
		default:
			// Port 0 is the kernel; a process may send to a group, too.
			if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 {
				take(message[:n])
			}
		}
	}
}
