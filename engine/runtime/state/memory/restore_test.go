package memory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// tableOf returns a table with n resources that were created in no order, and of which every tenth is gone.
func tableOf(n int) *Table {
	t := NewTable(Epoch{}, nil)
	random := rand.New(rand.NewPCG(1, 2))
	sequence := uint64(0)
	apply := func(c change.Change) {
		sequence++
		t.Apply(sequence, c)
	}
	for _, i := range random.Perm(n) {
		r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: things.Namespace, Type: things.Type, Id: fmt.Sprintf("id-%06d", i)}}
		apply(change.Change{After: r})
		if i%10 == 0 {
			apply(change.Change{Before: r})
		}
	}
	return t
}

// TestContentsStopsNoReader: it takes what a reader takes, so that it cannot be sorting while writers wait.
func TestContentsStopsNoReader(t *testing.T) {
	table := tableOf(1000)
	k := table.kind(things)
	k.mu.RLock()
	defer k.mu.RUnlock()
	done := make(chan Contents)
	go func() { done <- table.Contents(things) }()
	select {
	case c := <-done:
		ids := func(a, b encoded.Resource) int { return strings.Compare(a.ID(), b.ID()) }
		if len(c.Resources) != 900 || !slices.IsSortedFunc(c.Resources, ids) {
			t.Errorf("%d resources, in order %v; want 900", len(c.Resources), slices.IsSortedFunc(c.Resources, ids))
		}
	case <-time.After(10 * time.Second):
		t.Error("Contents waits for a reader to leave: it wants the kind for itself")
	}
}
