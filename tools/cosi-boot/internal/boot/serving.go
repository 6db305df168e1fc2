package boot

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/cosi-os/cosi/tools/cosi-boot/internal/seen"
)

// ProbeFunc fails if no node's API answers at an address.
type ProbeFunc func(ctx context.Context, address netip.Addr) error

const (
	// probes is how many nodes are asked at a time, every so often, and for how long after they had their user data.
	probes     = 64
	probeEvery = 2 * time.Second
	probeTime  = 10 * time.Minute
)

// await has Run find out when the node's API answers.
func (s *Server) await(mac string, address netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) < probes {
		s.waiting[mac] = address
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run follows nodes that have their user data until their API answers. It returns when ctx ends and nothing runs any more.
func (s *Server) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	running := make(chan struct{}, probes)
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		now := s.waiting
		s.waiting = map[string]netip.Addr{}
		s.mu.Unlock()
		for mac, address := range now {
			select {
			case running <- struct{}{}:
				all.Go(func() { s.follow(ctx, mac, address); <-running })
			default: // the list then shows that it has its user data, which is so
			}
		}
	}
}

// follow asks one node.
func (s *Server) follow(ctx context.Context, mac string, address netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		if m, ok := s.Seen.Get(mac); !ok || m.Stage != seen.UserData {
			return // it boots again, or somebody else follows it
		}
		if s.Probe(ctx, address) == nil {
			s.reached(mac, address, seen.Serving)
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
