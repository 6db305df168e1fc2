//go:build !race

package server_test // the race detector makes frames larger

import (
	"runtime"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// stacks is the memory of all stacks.
func stacks() int {
	runtime.GC() // gives back what has ended
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}

// The client in this process has a stack for each watch too.
func TestAWatchThatWaitsHasASmallStack(t *testing.T) {
	const watches, most = 400, 8 << 10
	n := newNode(t)
	n.create(t, thing("a"))
	n.watch(t, &resourcepb.WatchRequest{})
	before := stacks()
	for range watches {
		stream := n.watch(t, &resourcepb.WatchRequest{ApiVersion: 1, Options: &resourcepb.WatchOptions{BootstrapContents: true, Aggregated: true}})
		if got, want := message(t, stream), "CREATED a, BOOTSTRAPPED"; got != want {
			t.Fatalf("message %q; want %q", got, want)
		}
	}
	if got := (stacks() - before) / watches; got > most {
		t.Errorf("the stacks of a watch take %d bytes; want at most %d", got, most)
	}
}
