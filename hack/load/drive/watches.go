package drive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

const (
	// watchers see each update.
	watchers = 1000
	// updates are seen by them.
	updates = 40
	// idle watches are open when their memory is looked at.
	idle = 1500
	// first are open before that: what a server makes for the first watch of its life, and for each connection, is not what one takes.
	first = 64
)

// FanOut is what one update costs that every watcher sees.
type FanOut struct {
	CPU       time.Duration // of the server
	Half, P99 time.Duration // from the call until that share of them has it
}

// FanOut updates a resource that many watch.
func (s *Server) FanOut(ctx context.Context) (FanOut, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kind := s.newKind()
	r := thing(kind, "watched")
	created, err := s.client(0).Create(ctx, &resourcepb.CreateRequest{Resource: r})
	if err != nil {
		return FanOut{}, err
	}
	r = created.GetResource()
	streams, err := s.watch(ctx, kind, watchers)
	if err != nil {
		return FanOut{}, err
	}
	var halves, p99s []time.Duration
	var spent time.Duration
	for range updates {
		var waited []time.Duration
		cpu, _, err := s.process.cost(func() (err error) {
			r, waited, err = s.seen(ctx, r, streams)
			return err
		})
		if err != nil {
			return FanOut{}, err
		}
		spent += cpu
		halves = append(halves, percentile(waited, 50))
		p99s = append(p99s, percentile(waited, 99))
	}
	slices.Sort(halves)
	slices.Sort(p99s)
	return FanOut{CPU: spent / updates, Half: percentile(halves, 50), P99: percentile(p99s, 50)}, nil
}

// seen updates r and returns how long each watcher waited for it, sorted.
func (s *Server) seen(ctx context.Context, r *resourcepb.Resource, streams []watch) (*resourcepb.Resource, []time.Duration, error) {
	begun := time.Now()
	waited := make([]time.Duration, len(streams))
	failed := make([]error, len(streams))
	var running sync.WaitGroup
	for i, w := range streams {
		running.Go(func() {
			_, failed[i] = w.Recv()
			waited[i] = time.Since(begun)
		})
	}
	begun = time.Now()
	answer, err := s.client(0).Update(ctx, &resourcepb.UpdateRequest{NewResource: r})
	if err != nil {
		return nil, nil, err
	}
	running.Wait()
	for _, err := range failed {
		if err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(waited)
	return answer.GetResource(), waited, nil
}

// Idle returns the memory that a watch takes on the server while nothing happens.
func (s *Server) Idle(ctx context.Context) (bytes int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kind := s.newKind()
	if _, err := s.watch(ctx, kind, first); err != nil {
		return 0, err
	}
	before, err := s.process.memory()
	if err != nil {
		return 0, err
	}
	if _, err := s.watch(ctx, kind, idle); err != nil {
		return 0, err
	}
	after, err := s.process.memory()
	return (after - before) / idle, err
}

type watch = grpc.ServerStreamingClient[resourcepb.WatchResponse]

// watch opens n watches of a kind, over all connections, and waits until all are established.
func (s *Server) watch(ctx context.Context, kind string, n int) ([]watch, error) {
	streams := make([]watch, n)
	for i := range streams {
		var err error
		if streams[i], err = s.client(i).Watch(ctx, &resourcepb.WatchRequest{Namespace: namespace, Type: kind, ApiVersion: 1}); err != nil {
			return nil, err
		}
	}
	for i, w := range streams {
		first, err := w.Recv()
		if err != nil {
			return nil, fmt.Errorf("watch %d: %w", i, err)
		}
		if len(first.GetEvent()) > 0 {
			return nil, fmt.Errorf("watch %d begins with %v; want an empty message", i, first)
		}
	}
	return streams, nil
}
