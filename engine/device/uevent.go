// Package device follows the devices of the machine for PID 1: it gives the nodes below /dev to the groups that plugins' declarations
// ask for, and tells which modules new devices want.
package device

import (
	"context"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
)

// Event is a uevent of the kernel, as far as PID 1 cares.
type Event struct {
	Action    string // add, remove, change, …, or Lost
	Path      string // below /sys
	Subsystem string
	Node      string // below /dev: "input/event0"; empty without one
	Modalias  string
	Medium    bool // of a change: the disk has got another medium, or lost it
}

// Lost is the Action of an event that stands for those that were not read in time.
const Lost = "lost"

// Watch calls each for every uevent until ctx is done. Ready is closed when none is missed any more.
func Watch(ctx context.Context, ready chan<- struct{}, each func(Event)) error {
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		close(ready)
		return err
	}
	f := os.NewFile(uintptr(s), "uevent")
	defer f.Close()
	defer context.AfterFunc(ctx, func() { defer crash.Guard(); f.Close() })()
	// A burst of events while modules load must fit: PID 1 reads one at a time.
	unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	err = unix.Bind(s, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	close(ready)
	if err != nil {
		return err
	}
	buffer := make([]byte, 8192) // the kernel's are 2 KiB at most
	for {
		n, err := f.Read(buffer)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			each(Event{Action: Lost})
			continue
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if event, ok := parse(string(buffer[:n])); ok {
			each(event)
		}
	}
}

// parse reads "add@/devices/x\0ACTION=add\0DEVNAME=vda\0…".
func parse(message string) (Event, bool) {
	head, rest, _ := strings.Cut(message, "\x00")
	action, path, ok := strings.Cut(head, "@")
	if !ok || action == "" {
		return Event{}, false
	}
	event := Event{Action: action, Path: path}
	for field := range strings.SplitSeq(rest, "\x00") {
		switch key, value, _ := strings.Cut(field, "="); key {
		case "DEVNAME":
			event.Node = strings.TrimPrefix(value, "/dev/")
		case "SUBSYSTEM":
			event.Subsystem = value
		case "MODALIAS":
			event.Modalias = value
		case "DISK_MEDIA_CHANGE":
			event.Medium = true
		}
	}
	if strings.Contains(event.Node, "..") || strings.Contains(event.Path, "..") {
		event.Node, event.Path = "", ""
	}
	return event, true
}
