package supervisor

import (
	"cmp"
	"context"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/device"
	"github.com/cosi-os/cosi/engine/output"
	"github.com/cosi-os/cosi/engine/wire"
)

const (
	// inOrder is the end of a process that ended by itself and has nothing to complain about.
	inOrder = "exit 0"
	// settle is how long such a process waits at least: while a node goes down, its plugins are drained and end so one by one, and
	// are not to be started again before the node stops them all.
	settle = 2 * time.Second
	// again is when the confinement is read a second time. The third is at four times that and the fourth and last at sixteen times, for slow
	// machines: a plugin was seen to be not so far after 20 s, when others started beside it on an emulated processor.
	again = 5 * time.Second
)

// command asks a process to start or stop; done is closed when it has.
type command struct {
	start bool
	done  chan struct{}
}

// process is driven by one goroutine:
//
// It begins as running, or as stopped until what it waits for is there.
//
//	            Start                      exits
//	┌─ stopped ───────▶ running ─────────────────────▶ waiting ─┐
//	│     ▲  ▲             │  ▲                         │  │    │
//	│     │  │ exits       │  └──── back-off over, ─────┘  │    │
//	│     │  └── stopping ◀┘ Stop         Start             │    │
//	│     └─────────────────────── Stop ───────────────────┘    │
//	└──────────────▶ gone (context done, from any state) ◀──────┘
type process struct {
	s        *Supervisor
	spec     Spec
	commands chan command

	restarts int
	step     time.Duration // the last back-off
}

// run is the life of a process: it ends when ctx is done and the child is gone.
func (p *process) run(ctx context.Context) {
	for wanted := p.turn(ctx); ; {
		if !wanted {
			select {
			case c := <-p.commands:
				wanted = c.start
				close(c.done)
			case <-ctx.Done():
				return
			}
			continue
		}
		started := time.Now()
		pid, end, stop := p.once(ctx)
		if stop != nil {
			p.report(pid, end, time.Time{})
			close(stop)
			wanted = false
			continue
		}
		if ctx.Err() != nil {
			p.report(pid, end, time.Time{})
			return
		}
		var wait time.Duration
		p.step, wait = p.s.Backoff.next(p.step, time.Since(started))
		if end == inOrder {
			wait = max(wait, settle)
		}
		p.report(pid, end, time.Now().Add(wait))
		wanted = p.wait(ctx, wait)
		p.restarts++
	}
}

// turn waits until the process may start for the first time and reports whether it is still wanted then.
func (p *process) turn(ctx context.Context) bool {
	if p.spec.After == nil {
		return true
	}
	select {
	case <-p.spec.After:
		return true
	case c := <-p.commands:
		close(c.done)
		return c.start
	case <-ctx.Done():
		return false
	}
}

// report says how the process ended and, on the console, when it is started again.
func (p *process) report(pid int, end string, next time.Time) {
	p.s.Report(wire.Up{Exited: &wire.Exited{Name: p.spec.Name, PID: pid, At: time.Now(), How: end, NextStart: next}})
	if next.IsZero() {
		p.s.Log.Printf("%s ended: %s", p.spec.Name, end)
		return
	}
	p.s.Log.Printf("%s ended: %s; it starts again in %s", p.spec.Name, end, time.Until(next).Round(10*time.Millisecond))
}

// wait passes the back-off and reports whether the process is still wanted.
func (p *process) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case c := <-p.commands:
		close(c.done)
		return c.start
	case <-ctx.Done():
		return false
	}
}

// once runs the process once. It returns how it ended, and if it was stopped by a command, what to close then.
func (p *process) once(ctx context.Context) (pid int, end string, stop chan struct{}) {
	child, err := p.start()
	if err != nil {
		return 0, err.Error(), nil
	}
	p.s.Report(wire.Up{Started: &wire.Started{Name: p.spec.Name, PID: child.pid, At: time.Now(), Restarts: p.restarts}})
	child.follow(p)
	done := ctx.Done()
	commands := p.commands
	var grace <-chan time.Time
	first := cmp.Or(p.s.Again, again)
	at, later := first, time.NewTimer(first)
	defer later.Stop()
	for {
		select {
		case <-later.C:
			child.confinedFurther(p)
			if at < 16*first {
				later.Reset(3 * at)
				at *= 4
			}
		case status := <-child.exited:
			p.kill(child.pid) // what it started must not outlive it
			child.finish()
			if reason := child.refusal; reason != "" {
				return child.pid, reason, stop
			}
			return child.pid, how(status), stop
		case c := <-commands:
			if c.start {
				close(c.done)
				continue
			}
			stop, commands, done = c.done, nil, nil
			grace = p.terminate(child.pid)
		case <-done:
			commands, done = nil, nil
			grace = p.terminate(child.pid)
		case <-grace:
			p.s.Log.Printf("%s did not end within %s of SIGTERM: killed", p.spec.Name, p.s.Grace)
			p.kill(child.pid)
			grace = nil
		}
	}
}

// terminate asks the process to end.
func (p *process) terminate(pid int) <-chan time.Time {
	unix.Kill(pid, unix.SIGTERM) // it may be gone: then its end is on the way
	return time.After(p.s.Grace)
}

// kill ends the process and all that it started: its control group, and its process group where there is none.
func (p *process) kill(pid int) {
	if p.spec.Cgroup != "" && killGroup(p.spec.Cgroup) == nil {
		return
	}
	unix.Kill(-pid, unix.SIGKILL) // it leads a session of its own
}

// child is one run of a process.
type child struct {
	pid    int
	exited <-chan syscall.WaitStatus

	stdout, stderr, launch *os.File
	read                   chan struct{} // closed when all three have been read
	refusal                string        // what the launcher could not do; valid after finish
	enforced               atomic.Pointer[wire.Confined]
}

// start makes the pipes and the child.
func (p *process) start() (*child, error) {
	var files []*os.File
	env := p.spec.Env
	if p.spec.Prepare != nil {
		more, variables, release, err := p.spec.Prepare()
		if err != nil {
			return nil, err
		}
		defer release()
		files, env = more, append(slices.Clone(env), variables...)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	c := &child{read: make(chan struct{})}
	handed := []*os.File{null}
	for _, end := range []**os.File{&c.stdout, &c.stderr, &c.launch} {
		if end == &c.launch && !p.spec.Launched {
			break
		}
		r, w, err := os.Pipe()
		if err != nil {
			c.close()
			return nil, err
		}
		defer w.Close()
		*end = r
		handed = append(handed, w)
	}
	c.pid, c.exited, err = p.s.launch(p.spec, env, append(handed, files...))
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *child) close() {
	for _, f := range []*os.File{c.stdout, c.stderr, c.launch} {
		if f != nil {
			f.Close()
		}
	}
}

// follow reads the child's output, and its confinement once it has executed its program.
func (c *child) follow(p *process) {
	name := p.spec.Name
	p.s.all.Go(func() {
		defer crash.Guard()
		defer close(c.read)
		errors := make(chan struct{})
		go func() {
			defer crash.Guard()
			defer close(errors)
			p.s.Log.Copy(name, output.Stderr, c.stderr)
		}()
		launched := make(chan struct{})
		go func() {
			defer crash.Guard()
			defer close(launched)
			if c.launch != nil {
				c.confined(p)
			}
		}()
		p.s.Log.Copy(name, output.Stdout, c.stdout)
		<-errors
		<-launched
	})
}

// confined waits for the launcher to have become the program and reports what the kernel enforces on it.
func (c *child) confined(p *process) {
	said, _ := io.ReadAll(io.LimitReader(c.launch, 4096))
	landlock := false
	for line := range strings.Lines(string(said)) {
		kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "landlock":
			landlock = true
		case "error":
			c.refusal = "launch: " + text
			return
		}
	}
	confined, err := readConfinement(c.pid)
	if err != nil {
		return // it has ended already
	}
	confined.Name, confined.Landlock = p.spec.Name, landlock
	confined.DeviceFilter = p.spec.Cgroup != "" && device.Filtered(p.spec.Cgroup)
	c.enforced.Store(confined)
	p.s.Report(wire.Up{Confined: confined})
}

// confinedFurther reports what the kernel enforces on the process if it has confined itself further.
func (c *child) confinedFurther(p *process) {
	before := c.enforced.Load()
	if before == nil {
		return // without a launcher, or it has not come so far
	}
	now, err := readConfinement(c.pid)
	if err != nil {
		return // it has ended already
	}
	now.Name, now.Landlock, now.DeviceFilter = before.Name, before.Landlock, before.DeviceFilter
	if !reflect.DeepEqual(now, before) {
		c.enforced.Store(now)
		p.s.Report(wire.Up{Confined: now})
	}
}

// finish waits for the last output of a child that has ended.
func (c *child) finish() {
	deadline := time.Now().Add(readers)
	for _, f := range []*os.File{c.stdout, c.stderr, c.launch} {
		if f != nil {
			f.SetReadDeadline(deadline)
		}
	}
	<-c.read
	c.close()
}
