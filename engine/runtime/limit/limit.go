// Package limit bounds what one client can make the runtime hold: the size of a resource, the resources of a kind, open watches and calls
// at once. What goes beyond fails with state.ErrLimit and says what was asked for and how much is allowed.
//
// The runtime's main makes one Limiter. It stands in front of the state of each identity, and the stores ask it for the bound on
// resources. On a node, Run takes the values from the Limits resource, and they are in force at once.
package limit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"google.golang.org/protobuf/proto"
)

// Defaults hold where a Limits resource says nothing.
func Defaults() *machinepb.Limits {
	return &machinepb.Limits{MessageBytes: 4 << 20, ResourceBytes: 1 << 20, ResourcesOfKind: 100_000, Watches: 2000, Calls: 1000}
}

// Limiter holds the values in force and what each client has open. It is safe for concurrent use.
type Limiter struct {
	values atomic.Pointer[machinepb.Limits]

	mu      sync.Mutex // guards clients
	clients map[string]*client
}

// New returns a Limiter with the values of l, the defaults where they are zero.
func New(l *machinepb.Limits) *Limiter {
	limiter := &Limiter{clients: map[string]*client{}}
	limiter.Set(l)
	return limiter
}

// Set puts other values in force. What is open already stays.
func (l *Limiter) Set(values *machinepb.Limits) {
	complete := Defaults()
	proto.Merge(complete, values) // zero values are not merged
	l.values.Store(complete)
}

// Values returns those in force.
func (l *Limiter) Values() *machinepb.Limits { return l.values.Load() }

// ResourcesOfKind is how many a store takes of one kind.
func (l *Limiter) ResourcesOfKind() int { return int(l.Values().GetResourcesOfKind()) }

// spare is how many streams a connection has beyond what a client may have open.
const spare = 100

// Streams is how many streams a connection needs: a client may have all that it may have on one, and what is too many is to be refused in words,
// not to wait for a stream.
func (l *Limiter) Streams() uint32 { return streams(l.Values()) }

func streams(l *machinepb.Limits) uint32 { return l.GetWatches() + l.GetCalls() + spare }

// client is what one client has open, over all its connections.
type client struct{ calls, watches atomic.Int32 }

// State returns next for a client. Clients of the same name share what they may have.
func (l *Limiter) State(next state.State, name string) state.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.clients[name]
	if c == nil {
		c = &client{}
		l.clients[name] = c
	}
	return &limited{next, l, c}
}

type limited struct {
	next    state.State
	limiter *Limiter
	client  *client
}

// begin counts a call; it must be followed by end, whatever it returns.
func (l *limited) begin() error {
	if n, most := l.client.calls.Add(1), l.limiter.Values().GetCalls(); n > int32(most) {
		return fmt.Errorf("%w: %d calls at once, and a client may make %d", state.ErrLimit, n, most)
	}
	return nil
}

func (l *limited) end() { l.client.calls.Add(-1) }

// fits judges the size of a resource as it came.
func (l *limited) fits(r *resourcepb.Resource) error {
	if n, most := encoded.Size(r), l.limiter.Values().GetResourceBytes(); n > int(most) {
		return fmt.Errorf("%w: %s is %d bytes, and a resource may have %d", state.ErrLimit, state.PointerTo(r), n, most)
	}
	return nil
}

func (l *limited) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	defer l.end()
	if err := l.begin(); err != nil {
		return nil, err
	}
	return l.next.Get(ctx, p)
}

// List counts the call until its context is done: what it returns is still to be sent.
func (l *limited) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	err := l.begin()
	if err != nil {
		l.end()
		return nil, err
	}
	context.AfterFunc(ctx, l.end)
	return l.next.List(ctx, k, q)
}

func (l *limited) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	defer l.end()
	if err := l.begin(); err != nil {
		return nil, err
	}
	if err := l.fits(r); err != nil {
		return nil, err
	}
	return l.next.Create(ctx, r, o)
}

func (l *limited) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	defer l.end()
	if err := l.begin(); err != nil {
		return nil, err
	}
	if err := l.fits(r); err != nil {
		return nil, err
	}
	return l.next.Update(ctx, r, o)
}

func (l *limited) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	defer l.end()
	if err := l.begin(); err != nil {
		return err
	}
	return l.next.Destroy(ctx, p, o)
}

func (l *limited) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	defer l.end()
	if err := l.begin(); err != nil {
		return nil, err
	}
	return l.next.Teardown(ctx, p, o)
}

// Watch counts the watch until its context is done.
func (l *limited) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	n, most := l.client.watches.Add(1), l.limiter.Values().GetWatches()
	if n > int32(most) {
		l.client.watches.Add(-1)
		return nil, fmt.Errorf("%w: %d watches at once, and a client may have %d", state.ErrLimit, n, most)
	}
	watch, err := l.next.Watch(ctx, w)
	if err != nil {
		l.client.watches.Add(-1)
		return nil, err
	}
	context.AfterFunc(ctx, func() { l.client.watches.Add(-1) })
	return watch, nil
}
