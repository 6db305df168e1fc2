package processevents

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// sources are the ways to hear, the best first. The last is for a process without CAP_NET_ADMIN before Linux 6.6, or that may not open a netlink
// socket at all, as in a container.
func sources(every time.Duration) []doorbell.Source[note] {
	const proc, groups = "/proc", "/sys/fs/cgroup"
	return []doorbell.Source[note]{
		{Mode: doorbell.Tracepoint, Open: doorbell.Probe[note]{Load: load, Attach: attachments, Decode: decode}.Open},
		{Mode: doorbell.Netlink, Without: "programs from outside the image are not noticed, nor why a signal was sent", Open: func() (doorbell.Listener[note], error) {
			return openConnector(proc, groups)
		}},
		{
			Mode: doorbell.Poll, Without: fmt.Sprintf("crashes and programs from outside the image are not noticed; kills for want of memory are within %v, of their control group or one above it", every),
			Open: func() (doorbell.Listener[note], error) { return poll(groups, every) },
		},
	}
}

var attachments = []doorbell.Attachment{
	{Program: "delivered", Function: "signal_deliver"},
	{Program: "ended", Function: "sched_process_exit"},
	{Program: "executed", Function: "sched_process_exec"},
}

// load tells the programs what is the image: all that is on the root's device.
func load() (*ebpf.CollectionSpec, error) {
	spec, err := loadProbe()
	if err != nil {
		return nil, err
	}
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return nil, fmt.Errorf("stat /: %w", err)
	}
	// dev_t inside the kernel: include/linux/kdev_t.h.
	return spec, spec.Variables["root_device"].Set(unix.Major(root.Dev)<<20 | unix.Minor(root.Dev))
}
