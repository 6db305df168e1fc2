// Package node runs a node: it starts the runtime and the plugins, keeps them running, shows what they print, and stops them in
// order. The engine's main calls it, as PID 1 of a machine or beside another init.
package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/boot"
	"github.com/cosi-os/cosi/engine/cgroup"
	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/device"
	"github.com/cosi-os/cosi/engine/disk"
	"github.com/cosi-os/cosi/engine/module"
	"github.com/cosi-os/cosi/engine/output"
	"github.com/cosi-os/cosi/engine/supervisor"
	"github.com/cosi-os/cosi/engine/watchdog"
	"github.com/cosi-os/cosi/engine/wire"
)

// grace is how long a process has after SIGTERM.
const grace = 3 * time.Second

// deadline is how long the way down of a machine may take, from the first SIGTERM to the last sync, before it ends whatever hangs.
const deadline = 60 * time.Second

// Config is what a node is started with.
type Config struct {
	// Root is "/" on a machine.
	Root string
	// Machine: the engine is PID 1, and the devices, modules, control groups and the power are its business.
	Machine bool
	// Port of the network API; 0 takes any that is free.
	Port int
	// Engine is the path of the engine's own executable: it launches the others.
	Engine string
	Image  Image
	// ClockSet says that the clock was moved to the image's build time.
	ClockSet bool
}

// Node is a running node.
type Node struct {
	Config

	log          *output.Log
	record       *record
	supervisor   *supervisor.Supervisor
	declarations []*declaration.Declaration
	access       *device.Access
	groups       *cgroup.Tree       // nil off a machine
	modules      *module.Loader     // nil off a machine
	watchdog     *watchdog.Watchdog // nil until the devices were looked at, and off a machine
	early        *watchdog.Watchdog // of a trial, beside watchdog; nil otherwise
	disk         *disk.Preparer     // nil off a machine
	storage      *wire.Storage      // set before the runtime starts
	down         chan wire.Shutdown
	began        time.Time
	listens      chan struct{} // closed by gotAPI
	gotAPI       func()        // after the runtime's stage "api", or when that has not come for a while; more than once is harmless
	ready        chan struct{} // closed by gotReady
	gotReady     func()        // after the runtime's stage "ready", or a while after "api"; more than once is harmless

	background sync.WaitGroup
}

// New returns a node that shows its output on the log's consoles.
func New(c Config, log *output.Log) *Node {
	n := &Node{Config: c, log: log, record: newRecord(), down: make(chan wire.Shutdown, 1), began: time.Now(), listens: make(chan struct{}), ready: make(chan struct{})}
	n.gotAPI = sync.OnceFunc(func() { close(n.listens) })
	n.gotReady = sync.OnceFunc(func() { close(n.ready) })
	n.supervisor = &supervisor.Supervisor{Log: log, Report: n.record.publish, Backoff: supervisor.DefaultBackoff, Grace: grace}
	return n
}

// Stage records a moment of the boot. The kernel argument cosi.debug shows each on the console.
func (n *Node) Stage(name string, at time.Duration) {
	if n.Machine && boot.KernelArgument("cosi.debug") {
		n.log.Printf("stage %s after %d ms", name, at.Milliseconds())
	}
	n.record.publish(wire.Up{Stage: &wire.Stage{Name: name, Milliseconds: uint64(at.Milliseconds())}})
}

// Run runs the node until somebody asks for its end: the runtime, the power key, or ctx. It returns when every process has ended, with
// what was asked for. It fails, before it has started anything, only off a machine: there a node without its sockets is of no use.
func (n *Node) Run(ctx context.Context) (wire.Shutdown, error) {
	if err := n.prepare(); err != nil && !n.Machine {
		return wire.Shutdown{}, err
	}
	sockets, problems := n.bind()
	if len(problems) > 0 && !n.Machine {
		return wire.Shutdown{}, problems[0]
	}
	n.complain(problems...)

	// Processes outlive ctx: they are stopped in order.
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	supervised := make(chan struct{})
	go func() {
		defer crash.Guard()
		defer close(supervised)
		n.supervisor.Run(alive)
	}()
	n.start(alive, sockets)
	if n.Machine {
		n.background.Go(func() {
			defer crash.Guard()
			n.machine(alive)
		})
	}
	var why wire.Shutdown
	select {
	case why = <-n.down:
	case <-ctx.Done():
		why.Reason = context.Cause(ctx).Error()
	}
	n.stop(alive, why)
	end()
	<-supervised
	n.background.Wait()
	return why, nil
}

// prepare makes what the processes need before they start.
func (n *Node) prepare() error {
	var problems []error
	n.declarations, problems = declarations(n.Root)
	if len(n.declarations) == 0 {
		problems = append(problems, fmt.Errorf("%s: %w", filepath.Join(n.Root, declaration.Dir), errNoPlugins))
	}
	n.complain(problems...)
	n.access = device.NewAccess(nil)
	if n.Machine {
		n.prepareMachine()
	}
	for _, dir := range []string{"run/cosi", "run/cosi/plugin"} {
		if err := os.MkdirAll(filepath.Join(n.Root, dir), 0o755); err != nil {
			n.complain(err)
			return err
		}
	}
	return nil
}

// start loads the modules first: the runtime looks for its storage at once, and the plugins for devices.
func (n *Node) start(ctx context.Context, sockets []socket) {
	if n.Machine {
		n.beginTrial(ctx)
		n.complain(boot.SurviveLockups("/proc/sys/kernel")...)
		n.loadListed()
		n.Stage("modules", boot.SinceBoot())
	}
	n.openStorage(ctx)
	n.Stage("storage", boot.SinceBoot())
	spec, err := n.runtimeSpec(ctx, sockets)
	n.add(ctx, spec, err)
	n.Stage("runtime-started", boot.SinceBoot())
	for _, d := range n.declarations {
		spec, err := n.pluginSpec(d)
		n.add(ctx, spec, err)
	}
	n.Stage("plugins-started", boot.SinceBoot())
	time.AfterFunc(n.patience(), func() { defer crash.Guard(); n.gotAPI() })
}

func (n *Node) add(ctx context.Context, spec supervisor.Spec, err error) {
	if err == nil {
		err = n.supervisor.Add(ctx, spec)
	}
	if err != nil {
		n.complain(fmt.Errorf("%s: %w", spec.Name, err))
	}
}

// shutdown asks for the node's end. The first one who asks is heard.
func (n *Node) shutdown(s wire.Shutdown) {
	select {
	case n.down <- s:
	default:
	}
}

// stop ends the plugins in the reverse order of their start, and the runtime last: it writes down how they ended.
func (n *Node) stop(ctx context.Context, why wire.Shutdown) {
	verb := "powering off"
	switch {
	case why.Reboot:
		verb = "rebooting"
	case !n.Machine:
		verb = "ending"
	}
	if n.Machine {
		time.AfterFunc(deadline, func() { defer crash.Guard(); boot.Now(why.Reboot) })
	}
	n.log.Printf("%s: %s", verb, why.Reason)
	n.record.publish(wire.Up{Stopping: &wire.Stopping{Reboot: why.Reboot, Reason: why.Reason}})
	for i := len(n.declarations) - 1; i >= 0; i-- {
		n.supervisor.Stop(ctx, n.declarations[i].Name) // one that was never added needs no stop
	}
	n.supervisor.Stop(ctx, RuntimeName)
}

func (n *Node) complain(problems ...error) {
	for _, err := range problems {
		n.log.Printf("%v", err)
	}
}

// hello is the first frame to a runtime.
func (n *Node) hello() *wire.Hello {
	var uname unix.Utsname
	unix.Uname(&uname) // cannot fail
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return &wire.Hello{
		Version: wire.Version, EngineVersion: n.Image.Version, PID1: n.Machine, Root: n.Root,
		BootID: strings.TrimSpace(string(id)), Kernel: unix.ByteSliceToString(uname.Release[:]), Architecture: runtime.GOARCH,
		Hostname: unix.ByteSliceToString(uname.Nodename[:]), Built: n.Image.Built, Booted: time.Now().Add(-boot.SinceBoot()),
		ClockSet: n.ClockSet, Storage: n.storage,
	}
}
