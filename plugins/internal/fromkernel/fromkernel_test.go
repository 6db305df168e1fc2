package fromkernel

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// open returns a socket with a port of its own.
func open(t *testing.T, protocol int) (fd int, port uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, name.(*unix.SockaddrNetlink).Pid
}

// request is a netlink header: who sends it to the kernel gets an answer.
func request(kind, flags uint16) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofRtGenmsg)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	return b
}

func TestTheKernelIsHeard(t *testing.T) {
	fd, _ := open(t, unix.NETLINK_ROUTE)
	if err := unix.Sendto(fd, request(unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_DUMP), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var heard []byte
	err := Receive(ctx, fd, 64<<10, func(message []byte) { heard = append(heard, message...); cancel() }, func() { t.Error("something was lost") })
	if err != nil || len(heard) < unix.SizeofNlMsghdr || binary.NativeEndian.Uint16(heard[4:]) != unix.RTM_NEWLINK {
		t.Errorf("Receive = %v; heard %d bytes", err, len(heard))
	}
}

func TestOthersAreNot(t *testing.T) {
	fd, port := open(t, unix.NETLINK_USERSOCK)
	other, _ := open(t, unix.NETLINK_USERSOCK)
	if err := unix.Sendto(other, request(unix.RTM_NEWLINK, 0), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := Receive(ctx, fd, 4096, func([]byte) { t.Error("another process was heard") }, func() {}); err != nil {
		t.Error(err)
	}
	if n, _, err := unix.Recvfrom(fd, make([]byte, 16), unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("%d bytes, %v are left: the message was not read", n, err)
	}
}

func TestASocketThatIsNone(t *testing.T) {
	if err := Receive(t.Context(), 1<<20, 16, func([]byte) {}, func() {}); err == nil {
		t.Error("Receive succeeded")
	}
}
