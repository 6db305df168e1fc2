package processevents

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// sources are the ways to hear, the best first.
func sources() []doorbell.Source[note] {
	return []doorbell.Source[note]{
		{Mode: doorbell.Tracepoint, Open: doorbell.Probe[note]{Load: load, Attach: attachments, Decode: decode}.Open},
		{Mode: doorbell.Netlink, Without: "programs from outside the image are not noticed, nor why a signal was sent", Open: func() (doorbell.Listener[note], error) {
			return openConnector("/proc", "/sys/fs/cgroup")
		}},
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
