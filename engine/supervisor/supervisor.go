// Package supervisor starts processes, starts them again when they end, and stops them. It is the only place on the device that
// executes a program, and the only one that waits for children: it reaps orphans too.
package supervisor

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/output"
	"github.com/cosi-os/cosi/engine/wire"
)

// Spec is a process.
type Spec struct {
	Name string
	// Argv[0] is a path.
	Argv []string
	Env  []string
	Dir  string
	// Cgroup is the process's own control group, a directory that is made anew for each start; empty without one.
	Cgroup string
	// Confine, if set, is called with the control group before each start.
	Confine func(group *os.File)
	// Launched says that Argv is `engine launch …`: its descriptor 3 tells how the confinement went (see package launch), and Files
	// begin at 4 instead of 3.
	Launched bool
	// After, if set, is what the first start waits for: that it is closed, or that Start is called.
	After <-chan struct{}
	// Prepare, if set, is called before each start. It returns descriptors for the process and further variables; release is
	// called when the process has them or was not started.
	Prepare func() (files []*os.File, env []string, release func(), err error)
}

// Supervisor owns the processes. Run does its work; the other methods may be called by any goroutine while Run runs.
type Supervisor struct {
	// Log takes what the processes print.
	Log *output.Log
	// Report takes Started, Confined and Exited. It must not block.
	Report func(wire.Up)
	// Backoff between starts.
	Backoff Backoff
	// Grace is how long a process has to end after SIGTERM before its control group is killed.
	Grace time.Duration
	// Again is how long after its start a process's confinement is read a second time: a plugin has put on its own filter by then, and
	// the boot is over. 0 is 5 s.
	Again time.Duration

	// forking is held over each start, so that a child is known before it can be reaped. It guards pids.
	forking sync.Mutex
	pids    map[int]chan<- syscall.WaitStatus

	mu        sync.Mutex // guards processes
	processes map[string]*process

	all sync.WaitGroup // processes and their readers
}

// Run reaps children until ctx is done and every process was stopped.
func (s *Supervisor) Run(ctx context.Context) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	ended := make(chan struct{})
	go func() {
		defer crash.Guard()
		<-ctx.Done()
		s.all.Wait()
		close(ended)
	}()
	for {
		s.reap()
		select {
		case <-children:
		case <-ended:
			return
		}
	}
}

// reap collects every child that has ended.
func (s *Supervisor) reap() {
	s.forking.Lock()
	defer s.forking.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if exited, ok := s.pids[pid]; ok {
			delete(s.pids, pid)
			exited <- status // has room for one
		}
	}
}

// Add makes a process known and starts it, at the time that its Spec says. It ends when ctx is done, and a name is added once.
func (s *Supervisor) Add(ctx context.Context, spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[spec.Name] != nil {
		return fmt.Errorf("process %q: is there already", spec.Name)
	}
	if s.processes == nil {
		s.processes = map[string]*process{}
	}
	p := &process{s: s, spec: spec, commands: make(chan command)}
	s.processes[spec.Name] = p
	s.all.Go(func() {
		defer crash.Guard()
		p.run(ctx)
	})
	return nil
}

// Once runs a process to its end, which it returns as wire.Exited has it, and does not start it again. If ctx is done before, it is ended. A process
// of the same name may be added afterwards.
func (s *Supervisor) Once(ctx context.Context, spec Spec) (end string) {
	p := &process{s: s, spec: spec}
	pid, end, _ := p.once(ctx)
	s.Report(wire.Up{Exited: &wire.Exited{Name: spec.Name, PID: pid, At: time.Now(), How: end}})
	return end
}

// Start starts a process that was stopped or waits for its next start. It fails if there is none of that name.
func (s *Supervisor) Start(ctx context.Context, name string) error { return s.command(ctx, name, true) }

// Stop ends a process and keeps it ended. It returns when it has ended or ctx is done. It fails if there is none of that name.
func (s *Supervisor) Stop(ctx context.Context, name string) error { return s.command(ctx, name, false) }

func (s *Supervisor) command(ctx context.Context, name string, start bool) error {
	s.mu.Lock()
	p := s.processes[name]
	s.mu.Unlock()
	if p == nil {
		return fmt.Errorf("process %q: there is none of that name", name)
	}
	done := make(chan struct{})
	select {
	case p.commands <- command{start: start, done: done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// launch starts a child and returns the channel on which its end arrives.
func (s *Supervisor) launch(spec Spec, env []string, files []*os.File) (int, <-chan syscall.WaitStatus, error) {
	attr := &os.ProcAttr{Dir: spec.Dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if spec.Cgroup != "" {
		if err := freshGroup(spec.Cgroup); err != nil {
			return 0, nil, err
		}
		group, err := os.Open(spec.Cgroup)
		if err != nil {
			return 0, nil, err
		}
		defer group.Close()
		if spec.Confine != nil {
			spec.Confine(group)
		}
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	s.forking.Lock()
	defer s.forking.Unlock()
	child, err := os.StartProcess(spec.Argv[0], spec.Argv, attr)
	if err != nil {
		return 0, nil, err
	}
	exited := make(chan syscall.WaitStatus, 1)
	if s.pids == nil {
		s.pids = map[int]chan<- syscall.WaitStatus{}
	}
	s.pids[child.Pid] = exited
	pid := child.Pid
	child.Release() // reap waits for it, not os.Process
	return pid, exited, nil
}

// how describes the end of a process.
func how(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal " + status.Signal().String()
	}
	return fmt.Sprintf("exit %d", status.ExitStatus())
}

// readers is how long output of a process that has ended is waited for: a grandchild may hold the pipe.
const readers = time.Second
