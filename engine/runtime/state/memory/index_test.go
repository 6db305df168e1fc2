package memory_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

func query(terms ...*resourcepb.LabelTerm) *resourcepb.LabelQuery {
	return &resourcepb.LabelQuery{Terms: terms}
}

func term(key string, op resourcepb.LabelTerm_Operation, invert bool, values ...string) *resourcepb.LabelTerm {
	return &resourcepb.LabelTerm{Key: key, Op: op, Invert: invert, Value: values}
}

// TestAnIndexSelectsWhatAScanSelects writes at random and asks at random, so that keys become indexed at different times.
func TestAnIndexSelectsWhatAScanSelects(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	word := func(prefix string, n int) string { return fmt.Sprint(prefix, random.IntN(n)) }
	s := memory.New(memory.Options{})
	there := map[string]*resourcepb.Resource{}
	for i := range 5000 {
		id := word("id", 200)
		switch old := there[id]; {
		case old != nil && random.IntN(3) == 0:
			if err := s.Destroy(t.Context(), state.PointerTo(old), state.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			delete(there, id)
		default:
			r := line(id, "")
			r.Metadata.Labels = map[string]string{}
			for range random.IntN(4) {
				r.Metadata.Labels[word("key", 5)] = word("value", 4)
			}
			write(t, s, r)
			there[id] = s.Lookup(state.PointerTo(r))
		}
		if i%10 != 0 {
			continue
		}
		var q state.Query
		for range random.IntN(3) {
			var terms []*resourcepb.LabelTerm
			for range 1 + random.IntN(2) {
				op := []resourcepb.LabelTerm_Operation{resourcepb.LabelTerm_EXISTS, resourcepb.LabelTerm_EQUAL, resourcepb.LabelTerm_IN, resourcepb.LabelTerm_LT}[random.IntN(4)]
				terms = append(terms, term(word("key", 6), op, random.IntN(4) == 0, word("value", 4)))
			}
			q.Labels = append(q.Labels, query(terms...))
		}
		if random.IntN(3) == 0 {
			q.IDRegexp = word("", 10)
		}
		got, err := s.List(t.Context(), logs, q)
		if err != nil {
			t.Fatal(err)
		}
		w := watch(t, s, state.WatchRequest{Kind: logs, Query: q, BootstrapContents: true})
		selector, err := q.Compile()
		if err != nil {
			t.Fatal(err)
		}
		var want, ids []string
		for _, id := range slices.Sorted(maps.Keys(there)) {
			if selector.Matches(encoded.Of(there[id])) {
				want = append(want, id)
			}
		}
		for _, r := range got {
			ids = append(ids, r.ID())
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("seed %d, write %d: List(%v) = %v; want %v", seed, i, q, ids, want)
		}
		ids = nil
		for e := w.next(t); e.GetEventType() == resourcepb.EventType_CREATED; e = w.next(t) {
			ids = append(ids, e.GetResource().GetMetadata().GetId())
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("seed %d, write %d: Watch(%v) begins with %v; want %v", seed, i, q, ids, want)
		}
	}
}

// TestKeysBeyondTheIndexAreScannedFor: callers name the keys, and there may be any number of them.
func TestKeysBeyondTheIndexAreScannedFor(t *testing.T) {
	s := memory.New(memory.Options{})
	for i := range 100 {
		r := line(fmt.Sprint(i), "")
		r.Metadata.Labels = map[string]string{fmt.Sprint("key", i): "x"}
		write(t, s, r)
	}
	for range 2 {
		for i := range 100 {
			q := state.Query{Labels: []*resourcepb.LabelQuery{query(term(fmt.Sprint("key", i), resourcepb.LabelTerm_EQUAL, false, "x"))}}
			if all, err := s.List(t.Context(), logs, q); err != nil || len(all) != 1 || all[0].ID() != fmt.Sprint(i) {
				t.Fatalf("key %d: %v, %v; want its one resource", i, all, err)
			}
		}
	}
}

// One in a hundred of 10,000 has the label that is asked for.
func BenchmarkListSelective(b *testing.B) {
	s := memory.New(memory.Options{})
	for i := range 10_000 {
		r := line(fmt.Sprintf("id-%06d", i), "content")
		r.Metadata.Labels = map[string]string{"hundred": fmt.Sprint(i % 100)}
		write(b, s, r)
	}
	q := state.Query{Labels: []*resourcepb.LabelQuery{query(term("hundred", resourcepb.LabelTerm_EQUAL, false, "7"))}}
	b.ReportAllocs()
	for b.Loop() {
		if all, err := s.List(b.Context(), logs, q); err != nil || len(all) != 100 {
			b.Fatal(len(all), err)
		}
	}
}

// What a watch begins with is found as a list is. A scan would decode them all.
func TestAWatchDoesNotScanForWhatItBeginsWith(t *testing.T) {
	s := memory.New(memory.Options{})
	for i := range 10_000 {
		r := line(fmt.Sprintf("id-%06d", i), "content")
		if i == 7 {
			r.Metadata.Labels = map[string]string{"rare": "yes"}
		}
		write(t, s, r)
	}
	request := state.WatchRequest{Kind: logs, BootstrapContents: true, Query: state.Query{
		Labels: []*resourcepb.LabelQuery{query(term("rare", resourcepb.LabelTerm_EXISTS, false))},
	}}
	begin := func() {
		if e := watch(t, s, request).next(t); e.GetResource().GetMetadata().GetId() != "id-000007" {
			t.Fatalf("the watch begins with %v", e)
		}
	}
	begin() // which indexes the label
	if n := testing.AllocsPerRun(10, begin); n > 100 {
		t.Errorf("%v allocations to begin a watch of one resource among 10,000", n)
	}
}

// BenchmarkCreateAmong creates and destroys one resource among many.
func BenchmarkCreateAmong(b *testing.B) {
	for _, n := range []int{10, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := full(b, n)
			r := line("id-000004x", "content")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Create(b.Context(), r, state.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
				if err := s.Destroy(b.Context(), state.PointerTo(r), state.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
