package gauge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

// processes returns the engine, the runtime and the plugins, by pid: a process is named by its control group, process 1 is the engine.
func (g gauge) processes() ([]*testpb.GaugeRequestStatus_Process, error) {
	entries, err := os.ReadDir(g.proc)
	if err != nil {
		return nil, err
	}
	var all []*testpb.GaugeRequestStatus_Process
	for _, e := range entries {
		pid, err := strconv.ParseUint(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		p, err := g.process(uint32(pid))
		if err != nil && !ended(err) {
			return nil, err
		}
		if p != nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *testpb.GaugeRequestStatus_Process) int { return int(a.GetPid()) - int(b.GetPid()) })
	return all, nil
}

// ended says whether err comes of a process or a thread that has ended meanwhile, before a file of it was opened or before that was read.
func ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// process counts a process's wake-ups since it started, nil if it is none of ours.
func (g gauge) process(pid uint32) (*testpb.GaugeRequestStatus_Process, error) {
	dir := filepath.Join(g.proc, strconv.Itoa(int(pid)))
	name, err := processName(dir, pid)
	if err != nil || name == "" {
		return nil, err
	}
	p := &testpb.GaugeRequestStatus_Process{Name: name, Pid: pid}
	threads, err := filepath.Glob(filepath.Join(dir, "task/*/status"))
	if err != nil {
		return nil, err
	}
	for _, thread := range threads {
		status, err := fields(thread)
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		voluntary, err := status.number("voluntary_ctxt_switches")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", thread, err)
		}
		others, err := status.number("nonvoluntary_ctxt_switches")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", thread, err)
		}
		p.Wakeups += voluntary
		p.ContextSwitches += voluntary + others
	}
	return p, nil
}

// weigh tells what each process holds alone and has used. It walks all pages of each, so it is no part of what is done every second.
func (g gauge) weigh(all []*testpb.GaugeRequestStatus_Process) error {
	for _, p := range all {
		dir := filepath.Join(g.proc, strconv.Itoa(int(p.GetPid())))
		rollup, err := fields(filepath.Join(dir, "smaps_rollup"))
		if ended(err) {
			continue
		}
		if err != nil {
			return err
		}
		if p.PrivateDirty, err = rollup.kilobytes("Private_Dirty"); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		descriptors, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil && !ended(err) {
			return err
		}
		p.Descriptors = uint32(len(descriptors))
		if p.CpuMicroseconds, err = g.used(dir); err != nil && !ended(err) {
			return err
		}
	}
	return nil
}

// used is what the control group of a process has used of the processors, in microseconds.
func (g gauge) used(dir string) (uint64, error) {
	group, err := controlGroup(dir)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(g.groups, group, "cpu.stat")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			return strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no usage_usec", path)
}

func processName(dir string, pid uint32) (string, error) {
	if pid == 1 {
		return "engine", nil
	}
	group, err := controlGroup(dir)
	if err != nil {
		return "", err
	}
	if group, ok := strings.CutPrefix(group, "/cosi/"); ok {
		return strings.TrimPrefix(group, "plugins/"), nil
	}
	return "", nil
}

// controlGroup of a process, empty if it has none of the unified hierarchy.
func controlGroup(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return group, nil
		}
	}
	return "", nil
}

// memory returns MemTotal and MemAvailable in bytes.
func (g gauge) memory() (total, available uint64, err error) {
	info, err := fields(filepath.Join(g.proc, "meminfo"))
	if err != nil {
		return 0, 0, err
	}
	if total, err = info.kilobytes("MemTotal"); err != nil {
		return 0, 0, err
	}
	available, err = info.kilobytes("MemAvailable")
	return total, available, err
}

// table is a file of "Key: value" lines.
type table map[string]string

func fields(path string) (table, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t := table{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			t[key] = strings.TrimSpace(value)
		}
	}
	return t, nil
}

func (t table) number(key string) (uint64, error) {
	n, err := strconv.ParseUint(t[key], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", key, err)
	}
	return n, nil
}

func (t table) kilobytes(key string) (uint64, error) {
	value, ok := strings.CutSuffix(t[key], " kB")
	n, err := strconv.ParseUint(value, 10, 54)
	if !ok || err != nil {
		return 0, fmt.Errorf("%s: %q is not a number of kB", key, t[key])
	}
	return n << 10, nil
}
