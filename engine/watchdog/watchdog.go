// Package watchdog feeds the machine's watchdog: should PID 1 hang, the machine is reset. PID 1 runs it.
package watchdog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watchdog is an open device. It counts down from the moment it was opened.
type Watchdog struct {
	f       *os.File
	timeout time.Duration
}

// Open opens the first watchdog of a directory, /dev. Without one it returns nil and no error.
func Open(dir string) (*Watchdog, error) {
	files, err := filepath.Glob(filepath.Join(dir, "watchdog[0-9]*"))
	if err != nil || len(files) == 0 {
		return nil, err
	}
	f, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	seconds, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil || seconds <= 0 {
		w := &Watchdog{f: f}
		w.Close() // opened, it would reset a machine that never feeds it
		return nil, fmt.Errorf("%s: timeout of %d s: %w", files[0], seconds, err)
	}
	return &Watchdog{f: f, timeout: time.Duration(seconds) * time.Second}, nil
}

// Name is the device.
func (w *Watchdog) Name() string { return w.f.Name() }

// Run feeds it at half of its timeout until ctx is done. A feeding that failed is tried again: the machine is reset only if none
// succeeds in time.
func (w *Watchdog) Run(ctx context.Context) {
	ticker := time.NewTicker(w.timeout / 2)
	defer ticker.Stop()
	for {
		w.Feed()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Feed begins the countdown again.
func (w *Watchdog) Feed() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, w.f.Fd(), unix.WDIOC_KEEPALIVE, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Close disarms it, where the driver allows that: an orderly end is no reason for a reset.
func (w *Watchdog) Close() error {
	w.f.WriteString("V")
	return w.f.Close()
}
