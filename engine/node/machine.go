package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/boot"
	"github.com/cosi-os/cosi/engine/cgroup"
	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/device"
	"github.com/cosi-os/cosi/engine/module"
	"github.com/cosi-os/cosi/engine/power"
	"github.com/cosi-os/cosi/engine/watchdog"
	"github.com/cosi-os/cosi/engine/wire"
)

// moduleList names the modules that are loaded before the plugins start, one a line.
const moduleList = "/usr/lib/cosi/modules"

// prepareMachine makes the control groups, opens the modules and grants the devices that are there. What fails is said, and the node
// comes up without it.
func (n *Node) prepareMachine() {
	var err error
	if n.groups, err = cgroup.New("/sys/fs/cgroup"); err != nil {
		n.complain(err)
	}
	if n.modules, err = module.Open("/usr/lib/modules"); err != nil {
		n.complain(err)
	}
	n.access = device.NewAccess(n.declarations)
	names := []string{RuntimeName}
	for _, d := range n.declarations {
		names = append(names, d.Name)
	}
	if err := n.access.Confine(names...); err != nil {
		n.complain(err)
	}
	n.complain(n.access.MakeDirectories()...)
	n.complain(n.access.GrantAll()...)
}

// loadListed loads what the plugins need at once: the image's list, and VLANs if the command line asks for one.
func (n *Node) loadListed() {
	if n.modules == nil {
		return
	}
	text, err := os.ReadFile(moduleList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.complain(err)
	}
	names := strings.Fields(string(text))
	if boot.KernelArgument("vlan") {
		names = append(names, "8021q")
	}
	for _, name := range names {
		if err := n.modules.Load(name); err != nil {
			n.complain(err)
		}
	}
	n.complain(n.access.GrantAll()...)
}

// machine does what need not be done before the plugins start: the rest of the modules, the devices that come later, the kernel's
// messages, the watchdog and the power key. It returns when ctx is done.
func (n *Node) machine(ctx context.Context) {
	n.background.Go(func() {
		defer crash.Guard()
		n.runClock(ctx)
	})
	ready := make(chan struct{})
	n.watch(func() error { return device.Watch(ctx, ready, func(e device.Event) { n.plugged(ctx, e) }) })
	<-ready
	n.coldPlug(module.Network) // an address may wait for it
	if n.settle(ctx); ctx.Err() != nil {
		return // the node goes down already
	}
	n.coldPlug(nil)
	keys, _ := filepath.Glob("/dev/input/event*")
	for _, file := range keys {
		n.readKey(ctx, file)
	}
	n.Stage("cold-plugged", boot.SinceBoot())
	for _, d := range n.declarations {
		for _, name := range d.Modules {
			n.load(name)
		}
	}
	n.watch(func() error { return n.log.KernelMessages(ctx) })
	debug.FreeOSMemory() // what the boot took
	if n.openWatchdog(); n.watchdog == nil {
		n.watchdog, n.early = n.early, nil // fed twice as often, which is harmless
	}
	if n.watchdog != nil {
		n.log.Printf("feeding the watchdog %q, which waits %s", n.watchdog.Identity(), n.watchdog.Timeout())
		n.record.publish(wire.Up{Watchdog: &wire.Watchdog{Identity: n.watchdog.Identity()}})
		n.watchdog.Run(ctx)
	}
}

// openWatchdog opens that of the machine, whose driver is loaded by now, else the kernel's own. Opened, it counts down: not before it
// is fed.
func (n *Node) openWatchdog() {
	var err error
	if n.watchdog, err = watchdog.Open("/dev"); n.watchdog == nil && err == nil {
		n.load(watchdog.Software)
		n.watchdog, err = watchdog.Open("/dev")
	}
	if err != nil {
		n.complain(err)
	}
}

// coldPlug loads the modules of devices that are there, and gives their nodes to the plugins.
func (n *Node) coldPlug(wanted func(modalias string) bool) {
	if n.modules != nil {
		n.complain(n.modules.ColdPlug(wanted)...)
	}
	n.complain(n.access.GrantAll()...)
}

// settle waits until the runtime says that the node is ready: what follows would take the processor away from that. A node that does not
// get there may need just the modules that follow (a disk, a VLAN), so the wait ends: a moment after the API answers, or when patience does.
func (n *Node) settle(ctx context.Context) {
	select {
	case <-n.ready:
	case <-time.After(n.patience()):
	case <-ctx.Done():
	}
}

// patience is how long a boot that may still succeed is waited for: ten times as long as it took until here, because machines differ by a
// factor of a hundred, but at least one second and at most twenty.
func (n *Node) patience() time.Duration {
	return min(max(10*time.Since(n.began), time.Second), 20*time.Second)
}

// watch runs something beside and says how it failed.
func (n *Node) watch(run func() error) {
	n.background.Go(func() {
		defer crash.Guard()
		if err := run(); err != nil {
			n.complain(err)
		}
	})
}

func (n *Node) load(name string) {
	if n.modules == nil {
		return
	}
	if err := n.modules.Load(name); err != nil {
		n.complain(err)
	}
}

// loadModule loads a module and says what came of it. It takes a while.
func (n *Node) loadModule(order wire.LoadModule) {
	n.background.Go(func() {
		defer crash.Guard()
		n.record.publish(wire.Up{Module: n.askFor(order)})
	})
}

func (n *Node) askFor(order wire.LoadModule) *wire.Module {
	answer := &wire.Module{LoadModule: order, Reason: wire.ModuleLoaded}
	if n.modules == nil {
		answer.Reason, answer.Message = wire.ModuleFailed, "the kernel is not this node's"
		return answer
	}
	builtIn, err := n.modules.Ask(order.Name, order.Parameters)
	switch {
	case errors.Is(err, module.ErrMissing):
		answer.Reason, answer.Message = wire.ModuleMissing, err.Error()
	case err != nil:
		answer.Reason, answer.Message = wire.ModuleFailed, err.Error()
	case builtIn:
		answer.Reason = wire.ModuleBuiltIn
	}
	return answer
}

// plugged serves a uevent.
func (n *Node) plugged(ctx context.Context, e device.Event) {
	if e.Action == device.Lost {
		n.coldPlug(nil)
		return
	}
	if e.Action == "change" && e.Medium && e.Node != "" {
		n.readMedium(e)
	}
	if e.Action != "add" {
		return
	}
	if e.Node != "" {
		node := "/dev/" + e.Node
		if err := n.access.Grant(node); err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.complain(err)
		}
		if strings.HasPrefix(e.Node, "input/event") {
			n.readKey(ctx, node)
		}
		if e.Subsystem == "block" {
			// Plugins heard of the disk when PID 1 did, and may have been refused. They hear of it again, now that it is theirs.
			lookAgain(e)
		}
	}
	if e.Modalias != "" && n.modules != nil {
		if err := n.modules.LoadFor(e.Modalias); err != nil {
			n.complain(err)
		}
	}
}

// readMedium has the kernel find out about a disk's new medium, which it does when somebody opens the disk: until then it has the size and
// the partitions of the old one. Without O_NONBLOCK a drive would close its tray.
func (n *Node) readMedium(e device.Event) {
	n.background.Go(func() { // it takes as long as the disk does
		defer crash.Guard()
		if f, err := os.OpenFile("/dev/"+e.Node, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
		lookAgain(e)
	})
}

// lookAgain has the plugins that hear of devices hear of one once more.
func lookAgain(e device.Event) {
	os.WriteFile("/sys"+e.Path+"/uevent", []byte("change"), 0) // no file: it is gone
}

// readKey follows an input device if it has a power key. Read twice it does no harm: the first who asks for the end is heard.
func (n *Node) readKey(ctx context.Context, file string) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return // it is gone again
	}
	raw, err := f.SyscallConn() // Fd would make the descriptor blocking
	has := false
	if err == nil {
		raw.Control(func(fd uintptr) { has = power.HasPowerKey(fd) })
	}
	if !has {
		f.Close()
		return
	}
	keys := power.Keys{Alone: n.record.alone, Off: func(reason string) { n.shutdown(wire.Shutdown{Reason: reason}) }}
	n.background.Go(func() {
		defer crash.Guard()
		defer f.Close()
		defer context.AfterFunc(ctx, func() { defer crash.Guard(); f.Close() })()
		keys.Read(f) // until the device is unplugged
	})
}

// Disarm ends the watchdog's countdown. Run has returned.
func (n *Node) Disarm() {
	for _, w := range []*watchdog.Watchdog{n.watchdog, n.early} {
		if w != nil {
			w.Close()
		}
	}
}
