package node

import (
	"slices"
	"sync"

	"github.com/cosi-os/cosi/engine/wire"
)

// record is what a runtime that starts later has to be told: the processes and the stages of the boot. Output is in the rings.
type record struct {
	// wake holds a token after something was published. The connected runtime's sender waits for it.
	wake chan struct{}

	mu        sync.Mutex // guards the fields below
	processes []*process // in the order of their first start
	stages    []wire.Stage
	watchdog  *wire.Watchdog
	stopping  *wire.Stopping
	connected bool
	queue     []wire.Up // for the connected runtime
}

// process is the last that is known of one.
type process struct {
	name     string
	started  *wire.Started
	confined *wire.Confined
	exited   *wire.Exited
}

func newRecord() *record { return &record{wake: make(chan struct{}, 1)} }

// publish keeps a frame and queues it for the connected runtime.
func (r *record) publish(up wire.Up) {
	r.mu.Lock()
	switch {
	case up.Started != nil:
		p := r.process(up.Started.Name)
		p.started, p.confined, p.exited = up.Started, nil, nil
	case up.Confined != nil:
		r.process(up.Confined.Name).confined = up.Confined
	case up.Exited != nil:
		r.process(up.Exited.Name).exited = up.Exited
	case up.Stage != nil:
		r.stages = append(r.stages, *up.Stage)
	case up.Watchdog != nil:
		r.watchdog = up.Watchdog
	case up.Stopping != nil:
		r.stopping = up.Stopping
	}
	if r.connected {
		r.queue = append(r.queue, up)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *record) process(name string) *process {
	if i := slices.IndexFunc(r.processes, func(p *process) bool { return p.name == name }); i >= 0 {
		return r.processes[i]
	}
	p := &process{name: name}
	r.processes = append(r.processes, p)
	return p
}

// connect returns what has been published so far; from here on the queue takes the rest.
func (r *record) connect() []wire.Up {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected, r.queue = true, nil
	var all []wire.Up
	for i := range r.stages {
		all = append(all, wire.Up{Stage: &r.stages[i]})
	}
	if r.watchdog != nil {
		all = append(all, wire.Up{Watchdog: r.watchdog})
	}
	for _, p := range r.processes {
		if p.started != nil {
			all = append(all, wire.Up{Started: p.started})
		}
		if p.confined != nil {
			all = append(all, wire.Up{Confined: p.confined})
		}
		if p.exited != nil {
			all = append(all, wire.Up{Exited: p.exited})
		}
	}
	if r.stopping != nil {
		all = append(all, wire.Up{Stopping: r.stopping})
	}
	return all
}

func (r *record) disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected, r.queue = false, nil
}

// alone reports whether no runtime is connected.
func (r *record) alone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.connected
}

// take empties the queue.
func (r *record) take() []wire.Up {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.queue
	r.queue = nil
	return queue
}
