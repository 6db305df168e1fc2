package drive

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one whose use of the machine is read from /proc.
type process int

// cpu returns the time that the process has had so far, to the nanosecond: its clock as clock_getcpuclockid(3) names it. /proc counts in
// hundredths of a second.
func (p process) cpu() (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED in Linux, include/linux/posix-timers_types.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^int(p)<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("clock of process %d: %w", p, err)
	}
	return time.Duration(t.Nano()), nil
}

// memory returns how many bytes of memory the process has, those of its files left out.
func (p process) memory() (int64, error) {
	path := fmt.Sprintf("/proc/%d/status", p)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("%s: no RssAnon", path)
}

// cost calls f and returns what it cost the process, and how long it took.
func (p process) cost(f func() error) (cpu, took time.Duration, err error) {
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took = time.Since(begun)
	after, err := p.cpu()
	return after - before, took, err
}
