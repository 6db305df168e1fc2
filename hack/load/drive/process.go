package drive

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is one whose use of the machine is read from /proc.
type process int

// tick is the unit of times in /proc on every architecture that we build for.
const tick = time.Second / 100

// cpu returns the time that the process has had so far. The kernel counts in nanoseconds and shows ticks.
func (p process) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:])) // the name before may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q is cut short", p, data)
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", p, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
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
