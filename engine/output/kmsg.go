package output

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/wire"
)

// KernelMessages copies the kernel's messages, of all levels and from the first one kept, into the ring "kernel" until ctx is done.
// The kernel prints them on the consoles itself.
func (l *Log) KernelMessages(ctx context.Context) error {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/kmsg", Err: err}
	}
	f := os.NewFile(uintptr(fd), "/dev/kmsg")
	stop := context.AfterFunc(ctx, func() { defer crash.Guard(); f.Close() })
	defer f.Close()
	defer stop()
	booted := time.Now().Add(-sinceBoot())
	record := make([]byte, 8192) // the kernel's limit of a record
	for {
		n, err := f.Read(record)
		switch {
		case errors.Is(err, unix.EPIPE): // messages were overwritten before they were read: the next read goes on
			continue
		case errors.Is(err, os.ErrClosed), errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if since, text, ok := parseRecord(string(record[:n])); ok {
			l.Keep(wire.Output{Name: "kernel", Stream: Stderr, At: booted.Add(since), Line: text})
		}
	}
}

// sinceBoot is the kernel's clock of its messages.
func sinceBoot() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// parseRecord reads a record of /dev/kmsg: "6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n". Level names stay away: the
// text is what dmesg prints.
func parseRecord(record string) (since time.Duration, text string, ok bool) {
	head, text, ok := strings.Cut(record, ";")
	if !ok {
		return 0, "", false
	}
	fields := strings.SplitN(head, ",", 4)
	if len(fields) < 3 {
		return 0, "", false
	}
	microseconds, err := strconv.ParseUint(fields[2], 10, 52)
	if err != nil {
		return 0, "", false
	}
	text, _, _ = strings.Cut(text, "\n")
	return time.Duration(microseconds) * time.Microsecond, strings.ToValidUTF8(text, "\uFFFD"), true
}
