package sdk

import (
	"context"
	"errors"
	"log"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// loop is a controller at work: one goroutine that reconciles when its bell has rung.
type loop struct {
	Controller
	runner *runner
	state  *State
	bell   chan struct{} // holds one: further rings until the next Reconcile are the same ring
}

// ring makes Reconcile be called once more, soon.
func (l *loop) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// run reconciles until ctx is done or stopped is closed.
func (l *loop) run(ctx context.Context, stopped <-chan struct{}) {
	var retry backoff
	var said lastError
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-stopped:
			return
		case <-l.bell:
		case <-timer.C:
		}
		timer.Stop()
		l.runner.rest.end()
		err := l.reconcile(ctx)
		if err == nil || ctx.Err() != nil {
			retry.succeeded()
			said.clear()
			continue
		}
		// While the runtime is away every write fails so; the session says it once.
		if status.Code(err) != codes.Unavailable {
			said.log(l.Name, err)
		}
		timer.Reset(retry.failed())
	}
}

// reconcile calls Reconcile if everything it reads is in memory.
func (l *loop) reconcile(ctx context.Context) error {
	l.runner.gate.RLock()
	defer l.runner.gate.RUnlock()
	generation := l.runner.currentGeneration()
	if generation == 0 || !l.state.synced() {
		return nil // the watch that is missing rings when it has come
	}
	if err := l.Reconcile(ctx, l.state); err != nil {
		return err
	}
	l.runner.reconciled(l, generation)
	return nil
}

// watch runs Watch until ctx is done, or Watch has no more to say.
func (l *loop) watch(ctx context.Context) {
	var retry backoff
	var said lastError
	for {
		began := time.Now()
		err := l.Watch(ctx, l.ring)
		if err == nil || ctx.Err() != nil {
			return
		}
		if time.Since(began) > backoffLast {
			retry.succeeded()
		}
		said.log(l.Name+": watch", err)
		if !sleep(ctx, retry.failed()) {
			return
		}
		l.ring() // what changed meanwhile was not seen
	}
}

func (l *loop) drain(ctx context.Context) {
	if l.Drain == nil {
		return
	}
	if err := l.Drain(ctx, l.state); err != nil {
		log.Printf("%s: drain: %v", l.Name, err)
	}
}

// lastError keeps an error that comes again and again from filling the log.
type lastError struct{ text string }

func (e *lastError) log(what string, err error) {
	if text := err.Error(); text != e.text && !errors.Is(err, context.Canceled) {
		e.text = text
		log.Printf("%s: %v", what, err)
	}
}

func (e *lastError) clear() { e.text = "" }
