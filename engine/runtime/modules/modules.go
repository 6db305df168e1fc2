// Package modules has PID 1 load the kernel modules that resources ask for, and says in KernelModuleStatuses what came of it. The runtime
// of a node runs it.
//
// Asked for are KernelModules, and for each MountPoint the module of its file system, which the kernel knows by the alias "fs-TYPE": a kernel
// that may execute a helper would load that at mount(2) itself.
package modules

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
)

// The kinds.
var (
	Modules  = state.Kind{Namespace: "config", Type: "KernelModules.kernel.cosi.dev"}
	Mounts   = state.Kind{Namespace: "config", Type: "MountPoints.storage.cosi.dev"}
	Statuses = state.Kind{Namespace: "status", Type: "KernelModuleStatuses.kernel.cosi.dev"}
)

// fileSystem begins the alias of a file system's module.
const fileSystem = "fs-"

// Loader follows the resources.
type Loader struct {
	state  state.State
	output output.Writer
	ask    func(wire.LoadModule) error

	wake chan struct{} // holds a token after a resource changed or an answer came

	mu sync.Mutex // guards orders
	// orders are those given to PID 1 that are wanted still, with its answers; nil until it has answered.
	orders map[wire.LoadModule]*wire.Module
}

// New returns a Loader. ask sends PID 1 an order.
func New(s state.State, out output.Writer, ask func(wire.LoadModule) error) *Loader {
	return &Loader{state: s, output: out, ask: ask, wake: make(chan struct{}, 1), orders: map[wire.LoadModule]*wire.Module{}}
}

// Answer takes what PID 1 says of an order.
func (l *Loader) Answer(m *wire.Module) {
	l.mu.Lock()
	if _, given := l.orders[m.LoadModule]; given {
		l.orders[m.LoadModule] = m
	}
	l.mu.Unlock()
	l.again()
}

func (l *Loader) again() {
	select {
	case l.wake <- struct{}{}:
	default: // A wake-up is pending.
	}
}

// wanted is who asks for a module.
type wanted struct {
	order   wire.LoadModule
	version string // of the KernelModule; empty if MountPoints alone ask
}

// Run serves until ctx is done or a watch ends. A module is asked for once: its answer holds as long as it is wanted.
func (l *Loader) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := observe.New(l.state, l.again, Modules, Mounts)
	watched := make(chan error, 1)
	go func() { watched <- view.Run(ctx) }()
	said := map[string]bool{} // the ids of our statuses
	for {
		select {
		case <-l.wake:
		case err := <-watched:
			return err
		}
		if !view.Synced() {
			continue
		}
		if err := l.serve(ctx, demands(view), said); err != nil {
			cancel()
			return errors.Join(err, <-watched)
		}
	}
}

// demands returns what is asked for, by id.
func demands(view *observe.View) map[string]wanted {
	all := map[string]wanted{}
	for _, r := range observe.Items[storagepb.MountPoint](view, Mounts) {
		if r.GetPhase() == state.PhaseRunning && r.Spec.GetFstype() != "" {
			id := fileSystem + r.Spec.GetFstype()
			all[id] = wanted{order: wire.LoadModule{Name: id}}
		}
	}
	for _, r := range observe.Items[kernelpb.KernelModule](view, Modules) {
		if r.GetPhase() == state.PhaseRunning {
			order := wire.LoadModule{Name: r.GetId(), Parameters: strings.Join(r.Spec.GetParameters(), " ")}
			all[r.GetId()] = wanted{order, r.GetVersion()}
		}
	}
	return all
}

// serve asks for what was not asked for, and writes the statuses of what was answered.
func (l *Loader) serve(ctx context.Context, all map[string]wanted, said map[string]bool) error {
	l.forget(all)
	for id, w := range all {
		answer, given := l.answer(w.order)
		if !given {
			if err := l.ask(w.order); err != nil {
				return err
			}
		}
		if answer == nil || w.version == "" && answer.Reason == wire.ModuleBuiltIn {
			continue // a file system that needs no module has nothing to say
		}
		said[id] = true
		if err := l.output.Put(ctx, state.Pointer{Kind: Statuses, ID: id}, statusOf(answer, w.version)); err != nil {
			return err
		}
	}
	for id := range said {
		if _, still := all[id]; still {
			continue
		}
		if err := l.output.Delete(ctx, state.Pointer{Kind: Statuses, ID: id}); err != nil {
			return err
		}
		delete(said, id)
	}
	return nil
}

// forget drops the orders that nobody wants any more.
func (l *Loader) forget(all map[string]wanted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.orders, func(order wire.LoadModule, _ *wire.Module) bool { return all[order.Name].order != order })
}

// answer returns what PID 1 said of an order. given is false the first time: now it is to be given.
func (l *Loader) answer(order wire.LoadModule) (answer *wire.Module, given bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answer, given = l.orders[order]; !given {
		l.orders[order] = nil
	}
	return answer, given
}

func statusOf(m *wire.Module, version string) *kernelpb.KernelModuleStatus {
	return &kernelpb.KernelModuleStatus{
		ObservedVersion: version, Reason: m.Reason, Message: m.Message,
		Ready: m.Reason == wire.ModuleLoaded || m.Reason == wire.ModuleBuiltIn,
	}
}
