package processevents

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/fromkernel"
)

// connector hears by the kernel's process events connector (Documentation/driver-api/connector.rst), which tells of every fork, exec and
// exit by number only. What a number was is kept from its exec on: at its exit it is too late to ask.
type connector struct {
	fd        int
	proc      string            // /proc
	groups    string            // /sys/fs/cgroup
	processes map[uint32]known  // by pid
	killed    map[string]uint64 // how often the kernel killed in a group for want of memory
}

// known is what a process is.
type known struct{ comm, cgroup string }

// The connector's numbers (include/uapi/linux/connector.h, cn_proc.h).
const (
	connectorProc = 1 // CN_IDX_PROC, the group; CN_VAL_PROC
	listening     = 1 // PROC_CN_MCAST_LISTEN
	forked        = 0x00000001
	execed        = 0x00000002
	exited        = 0x80000000
)

// Sizes of a message's headers: struct nlmsghdr, struct cn_msg, and struct proc_event up to its union.
const (
	connectorAt = 16
	eventAt     = connectorAt + 20
	dataAt      = eventAt + 16
)

// openConnector listens, and looks at all processes that there are.
func openConnector(proc, groups string) (*connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return nil, fmt.Errorf("connector: %w", err)
	}
	c := &connector{fd: fd, proc: proc, groups: groups}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connector: bind: %w", err)
	}
	if err := unix.Sendto(fd, request(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connector: listen: %w", err)
	}
	c.look()
	return c, nil
}

// request is PROC_CN_MCAST_LISTEN in its headers.
func request() []byte {
	b := make([]byte, eventAt+4)
	order := binary.NativeEndian
	order.PutUint32(b, uint32(len(b)))
	order.PutUint16(b[4:], unix.NLMSG_DONE)
	order.PutUint32(b[connectorAt:], connectorProc)
	order.PutUint32(b[connectorAt+4:], connectorProc)
	order.PutUint16(b[connectorAt+16:], 4)
	order.PutUint32(b[eventAt:], listening)
	return b
}

// look takes in what all processes are, and how often each group has been short of memory.
func (c *connector) look() {
	c.processes, c.killed = map[uint32]known{}, map[string]uint64{}
	entries, _ := os.ReadDir(c.proc)
	for _, e := range entries {
		if pid, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
			c.learn(uint32(pid))
		}
	}
}

// learn takes in what one process is, as far as it still is.
func (c *connector) learn(pid uint32) {
	dir := filepath.Join(c.proc, strconv.FormatUint(uint64(pid), 10))
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return
	}
	k := known{comm: text([]byte(strings.TrimSuffix(string(comm), "\n")))}
	lines, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
	for line := range strings.Lines(string(lines)) {
		if group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			k.cgroup = text([]byte(group))
		}
	}
	c.processes[pid] = k
	if _, ok := c.killed[k.cgroup]; !ok {
		c.killed[k.cgroup] = c.kills(k.cgroup)
	}
}

// kills is how often the kernel has killed in a group for want of memory.
func (c *connector) kills(group string) uint64 {
	data, _ := os.ReadFile(filepath.Join(c.groups, group, "memory.events.local"))
	return countOf("oom_kill", string(data))
}

func (c *connector) Close() error { return unix.Close(c.fd) }

// Listen sleeps in the kernel while no process comes or goes.
func (c *connector) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	err := fromkernel.Receive(ctx, c.fd, 4<<10, func(message []byte) {
		if n, ok := c.take(message, doorbell.Now()); ok {
			hear(n)
		}
	}, func() {
		lost(1) // at least
		c.look()
	})
	if err != nil {
		return fmt.Errorf("connector: %w", err)
	}
	return nil
}

// take reads one event of a process; at is now, as the kernel stamps these events with another clock. It returns the note of one that
// ended as it should not.
func (c *connector) take(b []byte, at time.Duration) (note, bool) {
	word := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	if len(b) < dataAt+16 || word(connectorAt) != connectorProc || word(connectorAt+4) != connectorProc {
		return note{}, false
	}
	thread, process := word(dataAt), word(dataAt+4)
	switch word(eventAt) {
	case forked: // the parent comes first, in threads and processes, then the child
		if child, parent := word(dataAt+12), word(dataAt+4); child == word(dataAt+8) {
			c.processes[child] = c.processes[parent]
		}
	case execed:
		c.learn(process)
	case exited:
		if thread == process {
			return c.exit(process, exitCode(word(dataAt+8)), at)
		}
	}
	return note{}, false
}

// dumps tells the signals whose default is a core dump.
var dumps = map[unix.Signal]bool{
	unix.SIGQUIT: true, unix.SIGILL: true, unix.SIGTRAP: true, unix.SIGABRT: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGSEGV: true,
	unix.SIGXCPU: true, unix.SIGXFSZ: true, unix.SIGSYS: true,
}

// exit forgets a process, and returns the note if it crashed, or was killed and its group says for want of memory.
func (c *connector) exit(pid uint32, code exitCode, at time.Duration) (note, bool) {
	k := c.processes[pid]
	delete(c.processes, pid)
	n := note{at: at, what: crashed, pid: pid, code: code, comm: k.comm, cgroup: k.cgroup}
	if code.signal() == unix.SIGKILL && k.cgroup != "" {
		if kills := c.kills(k.cgroup); kills > c.killed[k.cgroup] {
			c.killed[k.cgroup]++
			n.what = oomKilled
			return n, true
		}
	}
	return n, dumps[code.signal()]
}
