package mount

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
)

const tablePath = "/proc/self/mountinfo"

// mounted is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mounted struct {
	device  uint64 // as unix.Mkdev makes it
	target  string
	flags   []string // of the mount: "ro", "nosuid"
	fstype  string
	source  string
	options string // of the file system: "rw,size=65536k"
}

// table is all that is mounted, in the order of the kernel: of two mounts with one target the later one covers the other.
type table []mounted

func readTable() (table, error) {
	data, err := os.ReadFile(tablePath)
	if err != nil {
		return nil, err
	}
	return parseTable(data)
}

// at returns the mount that is seen at target.
func (t table) at(target string) (mounted, bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i].target == target {
			return t[i], true
		}
	}
	return mounted{}, false
}

func parseTable(data []byte) (table, error) {
	var t table
	for number := 1; len(data) > 0; number++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte{'\n'})
		m, err := parseMounted(string(line))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", tablePath, number, err)
		}
		t = append(t, m)
	}
	return t, nil
}

// parseMounted reads "ID PARENT MAJOR:MINOR ROOT TARGET FLAGS [OPTIONAL…] - FSTYPE SOURCE OPTIONS".
func parseMounted(line string) (mounted, error) {
	before, after, ok := strings.Cut(line, " - ")
	first, last := strings.Split(before, " "), strings.Split(after, " ")
	if !ok || len(first) < 6 || len(last) < 3 {
		return mounted{}, fmt.Errorf("%q has too few fields", line)
	}
	device, err := parseDevice(first[2])
	if err != nil {
		return mounted{}, err
	}
	return mounted{
		device: device, target: unescape(first[4]), flags: strings.Split(first[5], ","),
		fstype: unescape(last[0]), source: unescape(last[1]), options: unescape(last[2]),
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

// watchTable calls wake whenever something is mounted, unmounted or remounted: the kernel then reports POLLPRI on the table.
func watchTable(ctx context.Context, wake func()) error {
	file, err := os.Open(tablePath)
	if err != nil {
		return err
	}
	defer file.Close()
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	return pollTable(int(file.Fd()), done.Number(), wake)
}

func pollTable(fd, stop int, wake func()) error {
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll %s: %w", tablePath, err)
		}
		if poll[1].Revents != 0 {
			return nil
		}
		if poll[0].Revents != 0 {
			wake()
		}
	}
}
