// Package kills kills a runtime with SIGKILL at random moments while clients write and watch, and compares what is there after each restart
// with what was acknowledged. The tests run a few rounds of it, "make soak" a thousand. It knows the runtime by its API alone.
//
// Held to be wrong is: an acknowledged write that is lost or looks different, an unacknowledged one that is there in part, a
// resource that nobody wrote, a watcher that resumes from its bookmark and misses an event or sees one twice, and a runtime that does not start.
package kills

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"
)

// Config says what to do.
type Config struct {
	Program string // the runtime
	Dir     string // for its socket and data; a socket's name is short, so this should be
	Seed    uint64
	First   int // number of the first round
	Rounds  int
	Log     io.Writer // of the runtime, and what went wrong
	// Spoil, if set, is called with the directory after each kill, by tests that want something to be found.
	Spoil func(dir string) error
}

const (
	kinds           = 3
	writersOfKind   = 3
	watchersOfKind  = 2
	longestLoad     = 400 * time.Millisecond
	patience        = 60 * time.Second
	killedUnready   = 5 // one round in so many is killed before it may have begun to serve
	longestUnready  = 60 * time.Millisecond
	resourcesOfEach = 8 // writer
)

// Report is what came of it.
type Report struct {
	Done     int // rounds
	Writes   int // acknowledged
	Unknown  int // whose answer was lost
	Events   int // seen by watchers
	Failures []string
}

// run is a number of rounds with one directory.
type run struct {
	Config
	writers  []*writer
	watchers []*watcher
	report   Report
}

// Run runs the rounds, until ctx is done or something is wrong: the directory then is as the failure left it.
func Run(ctx context.Context, c Config) Report {
	r := &run{Config: c}
	for k := range kinds {
		typ := fmt.Sprintf("Kills%d.soak.cosi.dev", k)
		for w := range writersOfKind {
			r.writers = append(r.writers, newWriter(typ, w))
		}
		for range watchersOfKind {
			r.watchers = append(r.watchers, &watcher{typ: typ, there: map[string]string{}})
		}
	}
	for n := c.First; n < c.First+c.Rounds && ctx.Err() == nil; n++ {
		if err := r.round(ctx, rand.New(rand.NewPCG(c.Seed, uint64(n)))); err != nil && ctx.Err() == nil {
			failure := fmt.Sprintf("seed %d, round %d: %v", c.Seed, n, err)
			fmt.Fprintln(c.Log, failure)
			r.report.Failures = append(r.report.Failures, failure)
			break
		} else if err == nil {
			r.report.Done++
		}
	}
	for _, w := range r.writers {
		r.report.Writes += w.acknowledged
		r.report.Unknown += w.unknown
	}
	for _, w := range r.watchers {
		r.report.Events += w.events
	}
	return r.report
}

// round starts the runtime, compares, and kills it under load.
func (r *run) round(ctx context.Context, random *rand.Rand) error {
	p, err := start(r.Config)
	if err != nil {
		return err
	}
	defer p.kill()
	if random.IntN(killedUnready) == 0 {
		time.Sleep(time.Duration(random.Int64N(int64(longestUnready))))
		return nil
	}
	conn, client, err := p.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	comparing, done := context.WithTimeout(ctx, patience)
	defer done()
	if err := r.compare(comparing, client); err != nil {
		return err
	}
	return r.load(ctx, p, random)
}

// load lets writers and watchers at the runtime and kills it while they are at it.
func (r *run) load(ctx context.Context, p *process, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var running sync.WaitGroup
	wrong := make(chan error, len(r.writers)+len(r.watchers))
	for _, w := range r.writers {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		running.Go(func() { wrong <- p.with(func(c client) error { return w.write(ctx, c, own) }) })
	}
	for _, w := range r.watchers {
		running.Go(func() { wrong <- p.with(func(c client) error { return w.watch(ctx, c, nil) }) })
	}
	time.Sleep(time.Duration(random.Int64N(int64(longestLoad))))
	p.kill()
	running.Wait()
	close(wrong)
	var all []error
	for err := range wrong {
		all = append(all, err)
	}
	if r.Spoil != nil {
		all = append(all, r.Spoil(filepath.Join(r.Dir, "data")))
	}
	return errors.Join(all...)
}
