package boot

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unmount unmounts everything but the root and what the kernel offers, the last mounted first, and returns what stayed. A file
// system that is busy is made read-only instead, which writes it out.
func Unmount() []error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return []error{err}
	}
	defer f.Close()
	var problems []error
	for _, target := range slices.Backward(mountPoints(f)) {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil && !errors.Is(err, unix.EINVAL) { // not mounted any more: the propagated copy of another
			problems = append(problems, &os.PathError{Op: "unmount", Path: target, Err: err})
		}
	}
	return problems
}

// mountPoints reads the targets of mountinfo that hold data, in the order of their mounting.
func mountPoints(r io.Reader) []string {
	var all []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		fstype, _, _ := strings.Cut(after, " ")
		target := unescape(fields[4])
		if target == "/" || below(target, "/proc") || below(target, "/sys") || below(target, "/dev") || fstype == "rootfs" {
			continue
		}
		all = append(all, target)
	}
	return all
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Reboot restarts the machine or switches it off. It does not return.
func Reboot(restart bool) {
	unix.Sync()
	Now(restart)
}

// Now is Reboot without the sync: the last resort when that hangs.
func Now(restart bool) {
	if restart {
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	for { // the kernel refused: a machine that cannot be switched off stays as it is
		time.Sleep(time.Hour)
	}
}
