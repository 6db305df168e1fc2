package linkevents

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// sources are the ways to hear, the best first. There is no tracepoint for any of this.
func sources() []doorbell.Source[note] {
	return []doorbell.Source[note]{
		{Mode: doorbell.Fentry, Open: doorbell.Probe[note]{Load: load, Attach: fentry, Decode: decode}.Open},
		{Mode: doorbell.Kprobe, Open: doorbell.Probe[note]{Load: load, Attach: kprobes, Decode: decode}.Open},
		{Mode: doorbell.Netlink, Open: func() (doorbell.Listener[note], error) { return openAnnouncements() }},
	}
}

var fentry = []doorbell.Attachment{{Program: "fexit_netif_carrier_on"}, {Program: "fexit_netif_carrier_off"}, {Program: "fentry_rtnl_notify"}}

var kprobes = []doorbell.Attachment{
	{Program: "kretprobe_netif_carrier_on", Function: "netif_carrier_on", Return: true}, {Program: "kprobe_netif_carrier_on", Function: "netif_carrier_on"},
	{Program: "kretprobe_netif_carrier_off", Function: "netif_carrier_off", Return: true}, {Program: "kprobe_netif_carrier_off", Function: "netif_carrier_off"},
	{Program: "kprobe_rtnl_notify", Function: "rtnl_notify"},
}

// load tells the programs which network namespace is the generator's own.
func load() (*ebpf.CollectionSpec, error) {
	spec, err := loadProbe()
	if err != nil {
		return nil, err
	}
	const own = "/proc/self/ns/net"
	var namespace unix.Stat_t
	if err := unix.Stat(own, &namespace); err != nil {
		return nil, fmt.Errorf("stat %s: %w", own, err)
	}
	return spec, spec.Variables["ours"].Set(uint32(namespace.Ino))
}

// announcements hears by rtnetlink's multicast groups.
type announcements struct{ fd int }

func openAnnouncements() (announcements, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return announcements{}, fmt.Errorf("netlink: %w", err)
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return announcements{}, fmt.Errorf("netlink: bind: %w", err)
	}
	return announcements{fd}, nil
}

func (a announcements) Close() error { return unix.Close(a.fd) }

// Listen sleeps in the kernel while nothing changes.
func (a announcements) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	var beginning [announced]byte
	for {
		switch n, err := unix.Read(a.fd, beginning[:]); {
		case err == unix.EAGAIN:
			poll := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN}, {Fd: int32(done.Number()), Events: unix.POLLIN}}
			if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("netlink: poll: %w", err)
			}
			if poll[1].Revents != 0 {
				return nil
			}
			time.Sleep(gather)
		case err == unix.ENOBUFS:
			lost(1) // at least
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("netlink: receive: %w", err)
		default:
			if s, ok := fromAnnouncement(beginning[:n]); ok {
				hear(note{doorbell.Now(), s})
			}
		}
	}
}

// gather is how long the first announcement waits for more: in a storm they come every 100 µs, and to wake up costs more than to read.
const gather = time.Millisecond

// announced is how much of an announcement is read: struct nlmsghdr, and struct ifinfomsg or ifaddrmsg up to the link's index, which both
// have at the same place.
const announced = unix.SizeofNlMsghdr + 8

func fromAnnouncement(b []byte) (subject, bool) {
	if len(b) < announced {
		return subject{}, false
	}
	s := subject{index: int(int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr+4:])))}
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		s.what = linkChange
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		s.what = addresses
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		s = subject{what: routes}
	default:
		return subject{}, false
	}
	return s, true
}
