package donefd

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

func ready(t *testing.T, d *FD, milliseconds int) bool {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(d.Number()), Events: unix.POLLIN}}
	if _, err := unix.Poll(poll, milliseconds); err != nil {
		t.Fatal(err)
	}
	return poll[0].Revents != 0
}

func TestReadyWhenTheContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d, err := New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if ready(t, d, 0) {
		t.Error("ready before the context is done")
	}
	cancel()
	if !ready(t, d, 10_000) {
		t.Error("not ready though the context is done")
	}
}

func TestCloseFreesTheDescriptors(t *testing.T) {
	for _, done := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		d, err := New(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			cancel()
		}
		d.Close()
		for _, fd := range []int{d.reader, d.writer} {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("done=%v: descriptor %d: %v, want EBADF", done, fd, err)
			}
		}
		cancel()
	}
}
