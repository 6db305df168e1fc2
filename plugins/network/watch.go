package network

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watchKernel calls wake at each change of links, addresses and routes. What the kernel says is not read: it is a bell, and one that
// was lost (ENOBUFS) rang too.
func watchKernel(ctx context.Context, wake func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("bind", err)
	}
	bell := os.NewFile(uintptr(fd), "netlink")
	defer bell.Close()
	defer context.AfterFunc(ctx, func() { bell.Close() })()

	wake() // for what changed before
	var some [16]byte
	for {
		_, err := bell.Read(some[:])
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("netlink: %w", err)
		}
		wake()
	}
}
