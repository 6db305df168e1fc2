// Package uevent receives the kernel's device events. Plugins use it as a doorbell: an event says that something changed, the plugin
// then looks at the world itself. It needs no rights.
package uevent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/fromkernel"
)

// Event is one uevent: "add@/devices/pci0000:00/…" and its variables.
type Event struct {
	Action    string            // add, remove, change, bind, unbind, move
	Path      string            // below /sys
	Variables map[string]string // SUBSYSTEM, DEVNAME, …
}

// Lost is the action of an event that is made up when some were not heard, because the kernel had to drop them: look at everything.
const Lost = "lost"

// buffer is the size of the socket's receive buffer: a burst of some thousand events.
const buffer = 1 << 20

// Watch calls f for every event until ctx is done, then returns nil. The first is a Lost one: what happened before was not heard.
func Watch(ctx context.Context, f func(Event)) error {
	s, err := Open()
	if err != nil {
		return err
	}
	f(Event{Action: Lost})
	return errors.Join(s.Receive(ctx, f), s.Close())
}

// Socket hears events from when it is opened.
type Socket struct{ fd int }

// Open returns a socket that hears.
func Open() (*Socket, error) {
	// SOCK_DGRAM and group 1: the kernel's own events, open to every user.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevent socket buffer: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevent socket bind: %w", err)
	}
	return &Socket{fd}, nil
}

// Close ends the socket. Receive has returned.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Receive calls f for every event until ctx is done, then returns nil.
func (s *Socket) Receive(ctx context.Context, f func(Event)) error {
	err := fromkernel.Receive(ctx, s.fd, 64<<10, func(message []byte) {
		if event, ok := parse(message); ok {
			f(event)
		}
	}, func() { f(Event{Action: Lost}) })
	if err != nil {
		return fmt.Errorf("uevent %w", err)
	}
	return nil
}

// parse reads "ACTION@PATH\0KEY=VALUE\0…" as lib/kobject_uevent.c writes it.
func parse(message []byte) (Event, bool) {
	fields := bytes.Split(message, []byte{0})
	action, path, ok := strings.Cut(string(fields[0]), "@")
	if !ok {
		return Event{}, false
	}
	event := Event{Action: action, Path: path, Variables: make(map[string]string, len(fields))}
	for _, field := range fields[1:] {
		if key, value, ok := strings.Cut(string(field), "="); ok {
			event.Variables[key] = value
		}
	}
	return event, true
}
