// Package gauge is a plugin for tests and the benchmark: asked by a GaugeRequest, it tells how much memory is left, what each process of
// the node holds alone, and how often it has woken up. It also breaks what nothing else on a node can: it kills or stops a process, has it
// hang or takes its memory, makes a function of PID 1 or the kernel panic, speaks as the kernel, has threads compete for the processor,
// mounts what nobody asked for, maps devices, makes loop devices and protects either, takes capabilities from a plugin, tries to change the root,
// and opens what the modes of files would keep from it.
package gauge

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's input and output.
const (
	requestType = "GaugeRequests.test.cosi.dev"
	statusType  = "GaugeRequestStatuses.test.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	g := gauge{proc: "/proc", groups: "/sys/fs/cgroup"}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name: "gauge", Inputs: []string{requestType}, Outputs: []string{statusType}, Reconcile: g.reconcile,
		}},
	}
}

type gauge struct{ proc, groups string }

// reconcile acts once on each version of a request.
func (g gauge) reconcile(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, r := range sdk.List[*testpb.GaugeRequest](s, requestType) {
		if st, ok := sdk.Get[*testpb.GaugeRequestStatus](s, statusType, r.GetId()); ok && st.Spec.GetObservedVersion() == r.GetVersion() {
			continue
		}
		st := &testpb.GaugeRequestStatus{Ready: true, Reason: "Measured"}
		if err := g.act(ctx, r.Spec, st); err != nil {
			st.Ready, st.Reason, st.Message = false, "Failed", err.Error()
		}
		st.ObservedVersion = r.GetVersion()
		errs = append(errs, s.Write(ctx, statusType, r.GetId(), st, r.Metadata))
	}
	for _, id := range s.Outputs(statusType) {
		if _, ok := sdk.Get[*testpb.GaugeRequest](s, requestType, id); !ok {
			errs = append(errs, s.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(errs...)
}

func (g gauge) act(ctx context.Context, r *testpb.GaugeRequest, st *testpb.GaugeRequestStatus) error {
	began := time.Now()
	all, err := g.watch(ctx, int(r.GetSeconds()))
	st.Watched = time.Since(began).Seconds()
	if err != nil {
		return err
	}
	switch {
	case r.GetKill() != "":
		signal := unix.SignalNum(cmp.Or(r.GetSignal(), "SIGKILL"))
		if signal == 0 {
			return fmt.Errorf("%q is no signal", r.GetSignal())
		}
		pid, err := find(all, r.GetKill())
		if err != nil {
			return err
		}
		if len(r.GetWithout()) > 0 {
			if err := deprive(r.GetKill(), r.GetWithout()); err != nil {
				return err
			}
		}
		return unix.Kill(pid, signal)
	case r.GetFreeze() != "":
		pid, err := find(all, r.GetFreeze())
		if err != nil {
			return err
		}
		return freeze(pid)
	case r.GetStarve() != "":
		return starve(filepath.Join("/sys/fs/cgroup/cosi/plugins", r.GetStarve(), "memory.max"))
	case r.GetBurn() > 0:
		burn(ctx, time.Duration(r.GetBurn())*time.Second)
		return nil
	case r.GetFault() != "":
		return fault(1, r.GetFault())
	case r.GetOpen() != "":
		f, err := os.Open(r.GetOpen())
		if err != nil {
			return err
		}
		return f.Close()
	case r.GetMount() != "":
		if err := os.MkdirAll(r.GetMount(), 0o755); err != nil {
			return err
		}
		return unix.Mount("stranger", r.GetMount(), "tmpfs", 0, "")
	case r.GetUnmount() != "":
		return unix.Unmount(r.GetUnmount(), 0)
	case r.GetChangeRoot():
		return changeRoot("/")
	case r.GetMapped() != nil:
		return mapDevice(r.GetMapped())
	case r.GetLoop() != nil:
		return loopDevice(ctx, r.GetLoop())
	case r.GetProtect() != "":
		return protect(r.GetProtect())
	case r.GetSysrq() != "":
		return os.WriteFile("/proc/sysrq-trigger", []byte(r.GetSysrq()), 0)
	case r.GetKernelMessage() != "":
		// Without the newline the kernel takes the record for one that goes on, and shows it only when the next one begins.
		return os.WriteFile("/dev/kmsg", []byte(r.GetKernelMessage()+"\n"), 0)
	}
	if err := g.weigh(all); err != nil {
		return err
	}
	st.Processes = all
	st.MemTotal, st.MemAvailable, err = g.memory()
	return err
}

// looks is how often a second the processes are looked at. Of those that find that a process had run there is none sooner than a second after
// another one: what wakes up just before a look, and goes on after it, has woken up once.
const looks = 2

// watch looks at the processes, and says when each of them had run, and how often it woke up in all.
func (g gauge) watch(ctx context.Context, seconds int) ([]*testpb.GaugeRequestStatus_Process, error) {
	began := time.Now()
	all, err := g.processes()
	first := byPID(all)
	found := map[uint32]int{} // the last look that found that a process had run
	for look := 1; err == nil && look <= seconds*looks; look++ {
		select {
		case <-time.After(time.Second / looks):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		before := byPID(all)
		all, err = g.processes()
		for _, p := range all {
			old, last := before[p.GetPid()], found[p.GetPid()]
			p.Awake = old.GetAwake()
			if p.GetContextSwitches() != old.GetContextSwitches() && (last == 0 || look-last >= looks) {
				p.Awake = append(p.Awake, time.Since(began).Seconds())
				found[p.GetPid()] = look
			}
		}
	}
	for _, p := range all {
		// A thread that has ended takes its count with it.
		p.Wakeups -= min(p.Wakeups, first[p.GetPid()].GetWakeups())
	}
	return all, err
}

func byPID(all []*testpb.GaugeRequestStatus_Process) map[uint32]*testpb.GaugeRequestStatus_Process {
	processes := map[uint32]*testpb.GaugeRequestStatus_Process{}
	for _, p := range all {
		processes[p.GetPid()] = p
	}
	return processes
}

func find(all []*testpb.GaugeRequestStatus_Process, name string) (pid int, err error) {
	for _, p := range all {
		if p.GetName() == name {
			return int(p.GetPid()), nil
		}
	}
	return 0, fmt.Errorf("there is no process %q", name)
}

// starve takes all memory from a control group, for which the kernel kills what is in it, and gives it back. The file may not be one of package
// os, which are non-blocking where they can be polled: since Linux 6.16 such a write sets the limit and nothing else.
func starve(limit string) error {
	fd, err := unix.Open(limit, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", limit, err)
	}
	defer unix.Close(fd)
	var errs []error
	for _, memory := range []string{"0", "max"} {
		if _, err := unix.Pwrite(fd, []byte(memory), 0); err != nil {
			errs = append(errs, fmt.Errorf("write %s to %s: %w", memory, limit, err))
		}
	}
	return errors.Join(errs...)
}

// burn has more threads want to run than there are processors, until d is over or ctx is done.
func burn(ctx context.Context, d time.Duration) {
	threads := 2 * runtime.NumCPU()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
	var all sync.WaitGroup
	for end := time.Now().Add(d); threads > 0; threads-- {
		all.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
			}
		})
	}
	all.Wait()
}
