// Package watchdog feeds the machine's watchdog: should PID 1 hang, the machine is reset. PID 1 runs it.
package watchdog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Software is the module of the kernel's own watchdog, for a machine without another: it resets while the kernel runs.
const Software = "softdog"

// Watchdog is an open device. It counts down from the moment it was opened.
type Watchdog struct {
	f        *os.File
	identity string
	timeout  time.Duration
}

// Open opens the first watchdog of a directory, /dev, that is not open already. Without one it returns nil and no error.
func Open(dir string) (*Watchdog, error) {
	files, err := filepath.Glob(filepath.Join(dir, "watchdog[0-9]*"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, err
		}
		w := &Watchdog{f: f}
		if err := w.ask(); err != nil {
			w.Close() // opened, it would reset a machine that never feeds it
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return w, nil
	}
	return nil, nil
}

// ask has the driver say who it is and how long it waits.
func (w *Watchdog) ask() error {
	info, err := unix.IoctlGetWatchdogInfo(int(w.f.Fd()))
	if err != nil {
		return err
	}
	w.identity = unix.ByteSliceToString(info.Identity[:])
	seconds, err := unix.IoctlGetInt(int(w.f.Fd()), unix.WDIOC_GETTIMEOUT)
	if err != nil {
		return err
	}
	if seconds <= 0 {
		return fmt.Errorf("timeout of %d s", seconds)
	}
	w.timeout = time.Duration(seconds) * time.Second
	return nil
}

// Identity is what its driver calls it: "Software Watchdog", "i6300ESB timer".
func (w *Watchdog) Identity() string { return w.identity }

// Timeout is how long it waits to be fed.
func (w *Watchdog) Timeout() time.Duration { return w.timeout }

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
