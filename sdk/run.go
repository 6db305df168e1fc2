package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cosi-os/cosi/api/declaration"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Run connects p to the runtime at the socket in COSI_ENDPOINT and runs its controllers. It returns
//
//   - nil when the runtime has drained the plugin,
//   - the context's error when ctx is done,
//   - another error when the plugin can never work: its declaration is broken, a controller goes beyond it, there is no endpoint,
//     or the runtime refuses the registration.
//
// Everything else, a runtime that is away included, is waited for. Run does not restrict the process; Main does.
func Run(ctx context.Context, p Plugin) error { return run(ctx, p, nil) }

func run(ctx context.Context, p Plugin, rest *rest) error {
	r, err := newRunner(p)
	if err != nil {
		return err
	}
	r.rest = rest
	conn, err := dial(os.Getenv(EnvEndpoint))
	if err != nil {
		return err
	}
	defer conn.Close()
	r.connect(conn)
	return r.run(ctx)
}

// dial prepares a connection; it is made when the first call is.
func dial(endpoint string) (*grpc.ClientConn, error) {
	if endpoint == "" {
		return nil, fmt.Errorf("%s is not set: it names the runtime's socket (unix:///run/cosi/plugin/NAME.sock), and the engine sets it when it starts a plugin", EnvEndpoint)
	}
	if !strings.HasPrefix(endpoint, "unix:/") {
		return nil, fmt.Errorf("%s: %q is not a unix socket (unix:///PATH)", EnvEndpoint, endpoint)
	}
	return grpc.NewClient(endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: backoffFirst, Multiplier: 2, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 20 * time.Second,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
		// A kind's whole contents come in one message.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
	)
}

// runner is a plugin at work.
type runner struct {
	name        string
	version     string
	declaration *declaration.Declaration
	conn        *grpc.ClientConn
	caches      map[string]*cache // by type, of all controllers
	loops       []*loop
	rest        *rest

	// gate is held for reading by a running Reconcile and for writing when the caches change as a whole, so that no Reconcile
	// sees one kind of the old store and another of the new.
	gate sync.RWMutex

	mu         sync.Mutex // guards the fields below
	epoch      []byte
	generation int // of the session; 0 before the first
	// waiting are the loops that have not reconciled in this generation; ready is closed when there is none.
	waiting map[*loop]bool
	ready   chan struct{}
}

// newRunner checks p against its own declaration.
func newRunner(p Plugin) (*runner, error) {
	d, err := declaration.Parse(p.Declaration)
	if err != nil {
		return nil, fmt.Errorf("plugin.json: %w", err)
	}
	r := &runner{name: d.Name, version: p.Version, declaration: d, caches: map[string]*cache{}}
	wanted := map[string]bool{}
	for _, c := range p.Controllers {
		for _, typ := range slices.Concat(c.Inputs, c.Outputs, c.Events) {
			wanted[typ] = true
		}
	}
	kinds := linkedKinds(wanted)
	for _, c := range p.Controllers {
		l, err := r.newLoop(c, kinds)
		if err != nil {
			return nil, fmt.Errorf("controller %q: %w", c.Name, err)
		}
		r.loops = append(r.loops, l)
	}
	return r, nil
}

func (r *runner) newLoop(c Controller, kinds map[string]kind) (*loop, error) {
	if c.Name == "" || c.Reconcile == nil {
		return nil, errors.New("it needs a name and Reconcile")
	}
	l := &loop{
		Controller: c, runner: r, bell: make(chan struct{}, 1),
		state: &State{plugin: r.name, caches: map[string]*cache{}, ring: r.ring, inputs: c.Inputs, outputs: slices.Concat(c.Outputs, c.Events)},
	}
	for _, typ := range slices.Concat(c.Inputs, l.state.outputs) {
		if !r.declaration.Reads(typ) && slices.Contains(c.Inputs, typ) {
			return nil, fmt.Errorf("input %s is not in the plugin's declaration", typ)
		}
		if !r.declaration.Writes(typ) && slices.Contains(l.state.outputs, typ) {
			return nil, fmt.Errorf("output %s is not in the plugin's declaration", typ)
		}
		k, ok := kinds[typ]
		if !ok {
			return nil, fmt.Errorf("%s: no message of this kind is linked into the program", typ)
		}
		events := slices.Contains(c.Events, typ)
		if r.caches[typ] == nil {
			r.caches[typ] = newCache(k, events)
		}
		if r.caches[typ].events != events {
			return nil, fmt.Errorf("%s: a controller has them as events, and another keeps them", typ)
		}
		l.state.caches[typ] = r.caches[typ]
	}
	return l, nil
}

func (r *runner) connect(conn *grpc.ClientConn) {
	r.conn = conn
	for _, l := range r.loops {
		l.state.client = resourcepb.NewStateClient(conn)
	}
}

// run runs the controllers and, one after the other, the sessions.
func (r *runner) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{}) // no more calls of Reconcile
	var reconciling, watching sync.WaitGroup
	for _, l := range r.loops {
		reconciling.Go(func() { l.run(ctx, stopped) })
		if l.Watch != nil {
			watching.Go(func() { l.watch(ctx) })
		}
	}
	err := r.sessions(ctx, func(deadline time.Time) {
		close(stopped)
		// A Reconcile that outlives the deadline is cancelled.
		timer := time.AfterFunc(time.Until(deadline), cancel)
		defer timer.Stop()
		reconciling.Wait()
		r.drain(ctx, deadline)
	})
	cancel()
	reconciling.Wait()
	watching.Wait()
	return err
}

// begin takes in that a session has begun with the store of epoch.
func (r *runner) begin(epoch []byte) (ready <-chan struct{}) {
	r.gate.Lock()
	defer r.gate.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	same := len(epoch) > 0 && bytes.Equal(epoch, r.epoch)
	for _, c := range r.caches {
		if same {
			c.unsync()
		} else {
			c.forget()
		}
	}
	r.epoch = epoch
	r.generation++
	r.waiting, r.ready = map[*loop]bool{}, make(chan struct{})
	for _, l := range r.loops {
		r.waiting[l] = true
		l.ring()
	}
	if len(r.loops) == 0 {
		close(r.ready)
	}
	return r.ready
}

// reconciled takes in that l has reconciled with what the session of that generation brought.
func (r *runner) reconciled(l *loop, generation int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if generation != r.generation || !r.waiting[l] {
		return
	}
	delete(r.waiting, l)
	if len(r.waiting) == 0 {
		close(r.ready)
	}
}

func (r *runner) currentGeneration() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generation
}

// ring wakes the controllers to which a change of typ matters.
func (r *runner) ring(typ string, c change) {
	for _, l := range r.loops {
		if c >= content && slices.Contains(l.Inputs, typ) || c == life && slices.Contains(l.Outputs, typ) {
			l.ring()
		}
	}
}

// drain lets the controllers let go, the last first.
func (r *runner) drain(ctx context.Context, deadline time.Time) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for _, l := range slices.Backward(r.loops) {
		l.drain(ctx)
	}
}
