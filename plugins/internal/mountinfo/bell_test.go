package mountinfo

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Other mounts of this machine may come and go meanwhile; the bell has to ring at each of the test's own.
func TestTheBellRingsForEachChange(t *testing.T) {
	b, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	rang := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- b.Listen(ctx, 0, func() {
			select {
			case rang <- struct{}{}:
			default:
			}
		})
	}()
	target := t.TempDir()
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) }) // EINVAL where it is not mounted
	for change := range 400 {
		what, do := "mount", func() error { return unix.Mount("bell", target, "tmpfs", 0, "") }
		if change%2 == 1 {
			what, do = "unmount", func() error { return unix.Unmount(target, 0) }
		}
		if err := do(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skipf("not permitted here: %v", err)
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-rang:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s %d rang no bell", what, change/2)
		}
	}
	cancel()
	if err := errors.Join(<-ended, b.Close()); err != nil {
		t.Error(err)
	}
}
