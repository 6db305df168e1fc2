package powerevents

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/uevent"
)

// listen hears without eBPF, from pipes in a directory of its own: a pipe stands in for an input device, what is no pipe has no such key.
func listen(t *testing.T) (devices string, notes <-chan note, lost <-chan uint64) {
	t.Helper()
	devices = filepath.Join(t.TempDir(), "input")
	heard, missed := make(chan note, 16), make(chan uint64, 16)
	supplies, err := uevent.Open()
	if err != nil {
		t.Fatal(err)
	}
	w := &withoutBPF{supplies: supplies, keys: pipes(devices)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Listen(ctx, func(n note) { heard <- n }, func(n uint64) { missed <- n }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Errorf("Listen = %v", err)
		}
	})
	return devices, heard, missed
}

// pipes are the input devices of a directory.
func pipes(dir string) inputs {
	return inputs{dir, func(fd int) (string, bool, error) {
		var stat unix.Stat_t
		err := unix.Fstat(fd, &stat)
		return "Power Button", stat.Mode&unix.S_IFMT == unix.S_IFIFO, err
	}}
}

func TestKeysWithoutBPF(t *testing.T) {
	for _, late := range []bool{false, true} {
		devices, notes, lost := listen(t)
		if late {
			time.Sleep(50 * time.Millisecond) // it has looked and found no directory
		}
		if err := os.Mkdir(devices, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(devices, "event0"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(devices, "event1")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		device := openWriter(t, path)
		for _, e := range [][]byte{event(evKey, 30, 1), event(evKey, keyPower, 0), event(evKey, keyPower, 1), event(evSyn, synDropped, 0)} {
			if _, err := device.Write(e); err != nil {
				t.Fatal(err)
			}
		}
		if n := <-notes; n.what != powerButton || n.name != "Power Button" {
			t.Errorf("note %+v; want a press", n)
		}
		if n := <-lost; n != 1 {
			t.Errorf("%d lost; want 1", n)
		}
		if len(notes) > 0 {
			t.Errorf("more than a press: %+v", <-notes)
		}
	}
}

// TestLidsAreHeldOpen: for their driver, while a probe hears of them. What comes from the device itself is nothing.
func TestLidsAreHeldOpen(t *testing.T) {
	k := newKernel(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "event0")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	heard := make(chan note, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	l := &lidsOpen{Listener: k, lids: pipes(dir)}
	go func() { done <- l.Listen(ctx, func(n note) { heard <- n }, func(uint64) {}) }()
	if _, err := openWriter(t, path).Write(event(evSw, swLid, 1)); err != nil {
		t.Fatal(err)
	}
	k.notes <- note{what: lidClosed, name: "Lid Switch"}
	if n := <-heard; n.what != lidClosed || n.name != "Lid Switch" {
		t.Errorf("note %+v; want that of the probe", n)
	}
	cancel()
	if err := <-done; err != nil || len(heard) > 0 {
		t.Errorf("Listen = %v, with %d more notes; want none", err, len(heard))
	}
	if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
		unix.Close(fd)
		t.Error("the device is open after the end")
	}
}

// openWriter opens a pipe once its other end is open.
func openWriter(t *testing.T, path string) *os.File {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			file := os.NewFile(uintptr(fd), path)
			t.Cleanup(func() { file.Close() })
			return file
		}
		if time.Now().After(end) {
			t.Fatalf("nobody reads %s: %v", path, err)
		}
	}
}
