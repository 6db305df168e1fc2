package blockevents

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
)

// failed is how requests that failed are seen in each mode that has eBPF.
var failed = doorbell.Attachment{Program: "failed", Function: "block_rq_error", Optional: true}

// sources are the ways to hear, the best first. The last is for a process that may not open a netlink socket, as in a container.
func sources(sys string, every time.Duration) []doorbell.Source[note] {
	fentry := []doorbell.Attachment{failed, {Program: "fentry_dev_uevent"}, {Program: "fexit_device_del"}, {Program: "fexit_blkdev_common_ioctl"}}
	kprobe := []doorbell.Attachment{
		failed, {Program: "kprobe_dev_uevent", Function: "dev_uevent"},
		{Program: "kretprobe_device_del", Function: "device_del", Return: true}, {Program: "kprobe_device_del", Function: "device_del"},
		{Program: "kretprobe_blkdev_common_ioctl", Function: "blkdev_common_ioctl", Return: true},
		{Program: "kprobe_blkdev_common_ioctl", Function: "blkdev_common_ioctl"},
	}
	return []doorbell.Source[note]{
		{Mode: doorbell.Fentry, Open: doorbell.Probe[note]{Load: loadProbe, Attach: fentry, Decode: decode}.Open},
		{Mode: doorbell.Kprobe, Open: doorbell.Probe[note]{Load: loadProbe, Attach: kprobe, Decode: decode}.Open},
		{Mode: doorbell.Netlink, Without: "requests that fail are not noticed, nor what is set read-only by BLKROSET", Open: openUevents},
		{
			Mode: doorbell.Poll, Without: fmt.Sprintf("what happens is noticed within %v, what has no effect then and errors are not", every),
			Open: func() (doorbell.Listener[note], error) { return poll(sys, every) },
		},
	}
}

// uevents hears by the kernel's device events.
type uevents struct{ *uevent.Socket }

func openUevents() (doorbell.Listener[note], error) {
	s, err := uevent.Open()
	return uevents{s}, err
}

func (u uevents) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	gone := departed{}
	return u.Receive(ctx, func(e uevent.Event) {
		if e.Action == uevent.Lost {
			clear(gone)
			lost(1) // at least
			return
		}
		if n, ok := fromUevent(e, doorbell.Now()); ok {
			hear(gone.once(n))
		}
	})
}

// departed are devices that have gone and not come back. That one of the device mapper's goes is announced by that, while it is there, and then
// as for every disk.
type departed map[device]bool

// once makes of the second announcement that a device goes one to look again: it is not there any more only now.
func (d departed) once(n note) note {
	switch n.what {
	case added:
		delete(d, n.device)
	case removed:
		if d[n.device] {
			n.what = again
		}
		d[n.device] = true
	}
	return n
}

// fromUevent reads a device event; ok is false for what is of no block device, or nothing that we know.
func fromUevent(e uevent.Event, at time.Duration) (note, bool) {
	if e.Variables["SUBSYSTEM"] != "block" || e.Variables["DEVNAME"] == "" {
		return note{}, false
	}
	n := note{at: at, name: e.Variables["DEVNAME"], partition: e.Variables["DEVTYPE"] == "partition"}
	for key, number := range map[string]*uint32{"MAJOR": &n.device.major, "MINOR": &n.device.minor} {
		value, err := strconv.ParseUint(e.Variables[key], 10, 32)
		if err != nil {
			return note{}, false
		}
		*number = uint32(value)
	}
	switch e.Action {
	case "add":
		n.what = added
	case "remove":
		n.what = removed
	case "change":
		n.what = changed
		if e.Variables["RESIZE"] != "" {
			n.what = resized
		} else if e.Variables["DISK_RO"] != "" {
			n.what = readOnly
		} else if e.Variables["SYNTH_UUID"] != "" {
			n.what = again
		}
	default:
		return note{}, false
	}
	return n, true
}
