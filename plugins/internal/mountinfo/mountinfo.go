// Package mountinfo reads what is mounted from /proc/self/mountinfo, and hears when that changes. Plugins share PID 1's mount namespace: each
// sees the same table.
package mountinfo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
)

// Path is the table.
const Path = "/proc/self/mountinfo"

// Mount is a line of the table, see proc_pid_mountinfo(5).
type Mount struct {
	ID      uint64 // while it is mounted; another may have it later
	Device  uint64 // as unix.Mkdev makes it
	Target  string
	Flags   []string // of the mount: "ro", "nosuid"
	Fstype  string
	Source  string
	Options string // of the file system: "rw,size=65536k"
}

// Table is all that is mounted, in the order of the kernel: of two mounts with one target the later one covers the other.
type Table []Mount

// Read reads the table as it is now.
func Read() (Table, error) {
	data, err := os.ReadFile(Path)
	if err != nil {
		return nil, err
	}
	return parse(data)
}

// At returns the mount that is seen at target.
func (t Table) At(target string) (Mount, bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].Target == target {
			return t[i], true
		}
	}
	return Mount{}, false
}

func parse(data []byte) (Table, error) {
	var t Table
	for number := 1; len(data) > 0; number++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		m, err := parseMount(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", Path, number, err)
		}
		t = append(t, m)
	}
	return t, nil
}

// parseMount reads "ID PARENT MAJOR:MINOR ROOT TARGET FLAGS [OPTIONAL…] - FSTYPE SOURCE OPTIONS".
func parseMount(line string) (Mount, error) {
	before, after, ok := strings.Cut(line, " - ")
	first, last := strings.Split(before, " "), strings.Split(after, " ")
	if !ok || len(first) < 6 || len(last) < 3 {
		return Mount{}, fmt.Errorf("%q has too few fields", line)
	}
	id, err := strconv.ParseUint(first[0], 10, 64)
	if err != nil {
		return Mount{}, fmt.Errorf("%q is not a mount's id", first[0])
	}
	device, err := parseDevice(first[2])
	if err != nil {
		return Mount{}, err
	}
	return Mount{
		ID: id, Device: device, Target: unescape(first[4]), Flags: strings.Split(first[5], ","),
		Fstype: unescape(last[0]), Source: unescape(last[1]), Options: unescape(last[2]),
	}, nil
}

func parseDevice(s string) (uint64, error) {
	major, minor, _ := strings.Cut(s, ":")
	a, errMajor := strconv.ParseUint(major, 10, 32)
	b, errMinor := strconv.ParseUint(minor, 10, 32)
	if errMajor != nil || errMinor != nil {
		return 0, fmt.Errorf("%q is not a device number", s)
	}
	return unix.Mkdev(uint32(a), uint32(b)), nil
}

// unescape turns \040 into a space, as the kernel writes space, tab, newline, backslash and '#'.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// Bell hears changes of the table from when it is opened: at each the kernel reports POLLPRI on it, once for each open file, to whoever asks
// first. So the file is none of package os, which has the Go runtime ask as well.
type Bell struct{ fd int }

// Open returns a Bell.
func Open() (Bell, error) {
	fd, err := unix.Open(Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Bell{}, fmt.Errorf("open %s: %w", Path, err)
	}
	return Bell{fd}, nil
}

// Close frees the descriptor.
func (b Bell) Close() error { return unix.Close(b.fd) }

// Listen calls wake whenever something is mounted, unmounted or remounted, until ctx is done. The kernel does not ring when only a file system
// changes, as by an error or from another mount namespace: so it calls wake after every silence of that length as well; 0 is never.
func (b Bell) Listen(ctx context.Context, silence time.Duration, wake func()) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	timeout := -1
	if silence > 0 {
		timeout = int(silence.Milliseconds())
	}
	for {
		poll := []unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLPRI}, {Fd: int32(done.Number()), Events: unix.POLLIN}}
		rang, err := unix.Poll(poll, timeout)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("poll %s: %w", Path, err)
		}
		if poll[1].Revents != 0 {
			return nil
		}
		if poll[0].Revents != 0 || rang == 0 {
			wake()
		}
	}
}
