// Package donefd turns the end of a context into a descriptor, for plugins that wait in poll(2) and not in a select.
package donefd

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// FD becomes ready to read (as POLLHUP) when its context is done.
type FD struct {
	reader, writer int
	cancel         func() bool
	closed         chan struct{}
}

// New returns an FD for ctx. The caller closes it.
func New(ctx context.Context) (*FD, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	d := &FD{reader: fds[0], writer: fds[1], closed: make(chan struct{})}
	d.cancel = context.AfterFunc(ctx, func() {
		defer close(d.closed)
		unix.Close(d.writer)
	})
	return d, nil
}

// Number is the descriptor to poll.
func (d *FD) Number() int { return d.reader }

// Close frees the descriptors.
func (d *FD) Close() {
	if d.cancel() {
		unix.Close(d.writer)
	} else {
		<-d.closed
	}
	unix.Close(d.reader)
}
