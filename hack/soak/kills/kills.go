// Package kills kills a runtime, or the machine below it, at random moments while clients write and watch, and compares what is there after
// each restart with what was acknowledged. The tests run a few rounds of it, "make soak" many. It knows the runtime by its API alone.
//
// Held to be wrong is: an acknowledged write that is lost or looks different, an unacknowledged one that is there in part, a
// resource that nobody wrote, a watcher that resumes from its bookmark and misses an event or sees one twice, and a runtime that does not start.
//
// A Recording goes further: it holds all that a node in a VM wrote to its disk, and with each answer to a client how much that was by then. The disk
// is made again as a loss of power might have left it at any of the node's flushes, or between two, and held against the answers that had
// been given. That needs no VM.
//
// Of an upgrade such a record (Upgrading) shows which version would be booted after a loss of power at any moment, and whether it is whole.
package kills

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/tools/client"
)

// Victim is a runtime, or a node with one, from its start until it is killed.
type Victim interface {
	// Dial returns a client with a connection of its own, as soon as there is something to connect to.
	Dial(context.Context) (*client.Client, error)
	// Kill gives it no time for anything, and returns when it is gone.
	Kill()
}

// Config says what is killed, and how.
type Config struct {
	// Start starts it where the one before was killed.
	Start func() (Victim, error)
	// Namespace and Types are what is written there: contents are messages with a string as their field 1.
	Namespace string
	Types     []string

	Seed   uint64
	First  int           // number of the first round
	Rounds int           // how many
	Load   time.Duration // that clients write for, at most

	// One round in OftenUnready, and the first if FirstUnready, is killed when at most Unready has passed since the start.
	Unready      time.Duration
	OftenUnready int
	FirstUnready bool
	// Patience is how long a start and a comparison, or a load, may take; 0: 2 minutes.
	Patience time.Duration

	Log io.Writer // gets what went wrong
	// Spoil, if set, is called after each kill, by tests that want something to be found.
	Spoil func() error
}

const (
	writersOfType   = 3
	watchersOfType  = 2
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
	if c.Patience == 0 {
		c.Patience = 2 * time.Minute
	}
	r := newRun(c)
	for n := c.First; n < c.First+c.Rounds && ctx.Err() == nil; n++ {
		if err := r.round(ctx, n, rand.New(rand.NewPCG(c.Seed, uint64(n)))); err != nil && ctx.Err() == nil {
			return r.failed(fmt.Errorf("round %d: %w", n, err))
		} else if err == nil {
			r.report.Done++
		}
	}
	return r.counted()
}

// newRun makes the clients.
func newRun(c Config) *run {
	r := &run{Config: c}
	for _, typ := range c.Types {
		for w := range writersOfType {
			r.writers = append(r.writers, newWriter(c.Namespace, typ, w))
		}
		for range watchersOfType {
			r.watchers = append(r.watchers, &watcher{namespace: c.Namespace, typ: typ, there: map[string]string{}})
		}
	}
	return r
}

// failed returns the report of a run that ends with err.
func (r *run) failed(err error) Report {
	failure := fmt.Sprintf("seed %d, %v", r.Seed, err)
	fmt.Fprintln(r.Log, failure)
	r.report.Failures = append(r.report.Failures, failure)
	return r.counted()
}

// counted returns the report with what the clients did.
func (r *run) counted() Report {
	for _, w := range r.writers {
		r.report.Writes += w.acknowledged
		r.report.Unknown += w.unknown
	}
	for _, w := range r.watchers {
		r.report.Events += w.events
	}
	return r.report
}

// round starts the victim, compares, and kills it under load.
func (r *run) round(ctx context.Context, n int, random *rand.Rand) error {
	victim, err := r.Start()
	if err != nil {
		return err
	}
	defer victim.Kill()
	if unready := random.IntN(r.OftenUnready) == 0; unready || r.FirstUnready && n == 0 {
		time.Sleep(time.Duration(random.Int64N(int64(r.Unready))))
		return nil
	}
	comparing, done := context.WithTimeout(ctx, r.Patience)
	defer done()
	c, err := victim.Dial(comparing)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := r.compare(comparing, c.State); err != nil {
		return err
	}
	return r.load(ctx, victim, random, time.Duration(random.Int64N(int64(r.Load))))
}

// load lets writers and watchers at the victim and kills it while they are at it.
func (r *run) load(ctx context.Context, victim Victim, random *rand.Rand, moment time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	var all []func(state) error
	for _, w := range r.writers {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		all = append(all, func(s state) error { return w.write(ctx, s, own) })
	}
	for _, w := range r.watchers {
		all = append(all, func(s state) error { return w.watch(ctx, s, nil) })
	}
	wrong := make([]error, len(all))
	var running sync.WaitGroup
	for i, do := range all {
		c, err := victim.Dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		running.Go(func() { wrong[i] = do(c.State) })
	}
	time.Sleep(moment)
	victim.Kill()
	running.Wait()
	if r.Spoil != nil {
		wrong = append(wrong, r.Spoil())
	}
	return errors.Join(wrong...)
}

// state is the API.
type state = resourcepb.StateClient
