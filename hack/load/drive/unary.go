package drive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Operation is one that has one answer.
type Operation string

// The operations that are measured.
const (
	Create  Operation = "create"
	Get     Operation = "get"
	Update  Operation = "update"
	Destroy Operation = "destroy"
)

// Rate is what came of an operation under load.
type Rate struct {
	Operation Operation
	Workers   int
	PerSecond float64
	CPU       time.Duration // of the server, for each
	P50, P99  time.Duration // that a worker waits
	Syncs     float64       // of the server's own, a second
	SyncP50   time.Duration // of those
}

// Rates measures workers that do each of the operations for a while, in the order that they need: what create makes is read and destroyed.
func (s *Server) Rates(ctx context.Context, workers int, each time.Duration, operations ...Operation) ([]Rate, error) {
	return s.ratesOf(ctx, s.newKind(), workers, each, operations...)
}

// ratesOf measures on resources of a kind that may have others.
func (s *Server) ratesOf(ctx context.Context, kind string, workers int, each time.Duration, operations ...Operation) ([]Rate, error) {
	crowd := newCrowd(s, kind, workers)
	var rates []Rate
	for _, o := range []Operation{Create, Get, Update, Destroy} {
		if o != Create && !slices.Contains(operations, o) {
			continue
		}
		rate, err := crowd.measure(ctx, o, each)
		if err != nil {
			return nil, fmt.Errorf("%s at %d: %w", o, workers, err)
		}
		if slices.Contains(operations, o) {
			rates = append(rates, rate)
		}
	}
	return rates, crowd.clear(ctx) // time may be up before all is destroyed
}

// crowd is workers that call at the same time.
type crowd struct {
	server  *Server
	workers []*worker
}

// worker makes one call at a time, on resources of its own.
type worker struct {
	client resourcepb.StateClient
	kind   string
	prefix string
	there  []*resourcepb.Resource // created and not destroyed
	turn   int
	waited []time.Duration
}

func newCrowd(s *Server, kind string, n int) *crowd {
	c := &crowd{server: s}
	for i := range n {
		c.workers = append(c.workers, &worker{client: s.client(i), kind: kind, prefix: fmt.Sprintf("worker-%d-", i)})
	}
	return c
}

// measure lets all workers do o for a while. A destroy ends when nothing is left.
func (c *crowd) measure(ctx context.Context, o Operation, each time.Duration) (Rate, error) {
	var done atomic.Int64
	before, err := c.server.synced()
	if err != nil {
		return Rate{}, err
	}
	cpu, took, err := c.server.process.cost(func() error {
		end := time.Now().Add(each)
		return c.all(func(w *worker) error {
			n, err := w.work(ctx, o, end)
			done.Add(int64(n))
			return err
		})
	})
	if err != nil {
		return Rate{}, err
	}
	after, err := c.server.synced()
	if err != nil {
		return Rate{}, err
	}
	n := done.Load()
	if n == 0 {
		return Rate{}, fmt.Errorf("none was done in %v", each)
	}
	var waited []time.Duration
	for _, w := range c.workers {
		waited = append(waited, w.waited...)
	}
	slices.Sort(waited)
	return Rate{
		Operation: o, Workers: len(c.workers), PerSecond: float64(n) / took.Seconds(), CPU: cpu / time.Duration(n),
		P50: percentile(waited, 50), P99: percentile(waited, 99), Syncs: float64(after.N-before.N) / took.Seconds(), SyncP50: after.P50,
	}, nil
}

// synced asks the server, if it says.
func (s *Server) synced() (Syncs, error) {
	if s.syncs == nil {
		return Syncs{}, nil
	}
	return s.syncs()
}

// all calls f for each worker at the same time.
func (c *crowd) all(f func(*worker) error) error {
	failed := make([]error, len(c.workers))
	var running sync.WaitGroup
	for i, w := range c.workers {
		running.Go(func() { failed[i] = f(w) })
	}
	running.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// clear destroys what is left.
func (c *crowd) clear(ctx context.Context) error {
	return c.all(func(w *worker) error {
		for len(w.there) > 0 {
			if err := w.do(ctx, Destroy); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *worker) work(ctx context.Context, o Operation, end time.Time) (n int, err error) {
	w.waited = w.waited[:0]
	begun := time.Now()
	for begun.Before(end) && !(o == Destroy && len(w.there) == 0) {
		if err := w.do(ctx, o); err != nil {
			return n, err
		}
		n++
		now := time.Now()
		w.waited = append(w.waited, now.Sub(begun))
		begun = now
	}
	return n, nil
}

func (w *worker) do(ctx context.Context, o Operation) error {
	switch o {
	case Create:
		a, err := w.client.Create(ctx, &resourcepb.CreateRequest{Resource: thing(w.kind, w.prefix+name(len(w.there)))})
		if err != nil {
			return err
		}
		w.there = append(w.there, a.GetResource())
		return nil
	case Destroy:
		last := w.there[len(w.there)-1]
		w.there = w.there[:len(w.there)-1]
		_, err := w.client.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: namespace, Type: w.kind, Id: last.GetMetadata().GetId()})
		return err
	}
	w.turn = (w.turn + 1) % len(w.there)
	if o == Get {
		_, err := w.client.Get(ctx, &resourcepb.GetRequest{Namespace: namespace, Type: w.kind, Id: w.there[w.turn].GetMetadata().GetId()})
		return err
	}
	a, err := w.client.Update(ctx, &resourcepb.UpdateRequest{NewResource: w.there[w.turn]})
	if err != nil {
		return err
	}
	w.there[w.turn] = a.GetResource()
	return nil
}

// spread does something n times, over all connections.
func (s *Server) spread(n int, do func(c resourcepb.StateClient, i int) error) error {
	const workers = 64
	var next atomic.Int64
	return newCrowd(s, s.newKind(), workers).all(func(w *worker) error {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			if err := do(w.client, i); err != nil {
				return err
			}
		}
		return nil
	})
}

// percentile returns that of a sorted list.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100]
}
