package memory

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

var things = state.Kind{Namespace: "default", Type: "Things.example.org"}

// pair returns a store that has two resources, a and b, with room for one event in its history: a is encoded.
func pair(t *testing.T) (s *Store, a, b *resourcepb.Resource) {
	t.Helper()
	s = New(Options{Limits: func(state.Kind) Limits { return Limits{Events: 1} }})
	created := make([]*resourcepb.Resource, 2)
	for i, id := range []string{"a", "b"} {
		r := &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{
				Namespace: things.Namespace, Type: things.Type, Id: id, Labels: map[string]string{"id": id}, Finalizers: []string{"f"},
				Annotations: map[string]string{"k": "v"},
			},
			Spec: &resourcepb.Spec{ProtoSpec: []byte{1, 2}, YamlSpec: "x: 1\n"},
		}
		var err error
		if created[i], err = s.Create(t.Context(), r, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, created[0], created[1]
}

// isEncoded reports whether the store keeps a resource encoded.
func isEncoded(s *Store, id string) bool {
	return s.kind(things).lookup(id).IsEncoded()
}

func TestWhatTheHistoryHasDroppedIsKeptEncoded(t *testing.T) {
	s, a, b := pair(t)
	if !isEncoded(s, "a") || isEncoded(s, "b") {
		t.Fatalf("a is encoded: %v, b: %v; want only a", isEncoded(s, "a"), isEncoded(s, "b"))
	}
	same := func(what string, got []*resourcepb.Resource, want ...*resourcepb.Resource) {
		t.Helper()
		if !proto.Equal(&resourcepb.WatchResponse{Event: events(got)}, &resourcepb.WatchResponse{Event: events(want)}) {
			t.Errorf("%s: %v; want %v", what, got, want)
		}
	}
	got, err := s.Get(t.Context(), state.Pointer{Kind: things, ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	same("get", []*resourcepb.Resource{got}, a)
	term := &resourcepb.LabelTerm{Key: "id", Op: resourcepb.LabelTerm_EQUAL, Value: []string{"a"}}
	for what, q := range map[string]state.Query{
		"by label": {Labels: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{term}}}}, "by id": {IDRegexp: "^a$"},
	} {
		list, err := s.List(t.Context(), things, q)
		if err != nil {
			t.Fatal(err)
		}
		same(what, messages(list), a)
	}
	list, err := s.List(t.Context(), things, state.Query{})
	if err != nil {
		t.Fatal(err)
	}
	same("list", messages(list), a, b)
	w, err := s.Watch(t.Context(), state.WatchRequest{Kind: things, BootstrapContents: true})
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.Next(t.Context())
	if err != nil || len(first) != 3 {
		t.Fatalf("a watch begins with %v, %v", first, err)
	}
	same("watch", []*resourcepb.Resource{first[0].GetResource(), first[1].GetResource()}, a, b)

	// An update is checked against what was encoded, shows it as it was, and sees to it that b is encoded.
	changed := proto.CloneOf(a)
	changed.Spec.ProtoSpec = []byte{3}
	changed.Metadata.Finalizers = nil
	after, err := s.Update(t.Context(), changed, state.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	updated, err := w.Next(t.Context())
	if err != nil || len(updated) != 1 {
		t.Fatalf("the watch goes on with %v, %v", updated, err)
	}
	same("updated", []*resourcepb.Resource{updated[0].GetOld(), updated[0].GetResource()}, a, after)
	if isEncoded(s, "a") || !isEncoded(s, "b") {
		t.Errorf("a is encoded: %v, b: %v; want only b", isEncoded(s, "a"), isEncoded(s, "b"))
	}
}

// TestAListDecodesNothing: what it finds among many encoded resources is given out as it is kept, by label and whole.
func TestAListDecodesNothing(t *testing.T) {
	s := New(Options{Limits: func(state.Kind) Limits { return Limits{Events: 1} }})
	const n = 1000
	for i := range n {
		r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{
			Namespace: things.Namespace, Type: things.Type, Id: fmt.Sprint(i), Labels: map[string]string{"parity": fmt.Sprint(i % 2)},
		}}
		if _, err := s.Create(t.Context(), r, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	equal := &resourcepb.LabelTerm{Key: "parity", Op: resourcepb.LabelTerm_EQUAL, Value: []string{"1"}}
	unequal := &resourcepb.LabelTerm{Key: "parity", Op: resourcepb.LabelTerm_EQUAL, Value: []string{"0"}, Invert: true}
	for what, c := range map[string]struct {
		q    state.Query
		want int
	}{
		"all":            {state.Query{}, n},
		"by the index":   {state.Query{Labels: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{equal}}}}, n / 2},
		"without it":     {state.Query{Labels: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{unequal}}}}, n / 2},
		"by their names": {state.Query{IDRegexp: "^1"}, 111},
	} {
		allocations := testing.AllocsPerRun(10, func() {
			if list, err := s.List(t.Context(), things, c.q); err != nil || len(list) != c.want {
				t.Errorf("%s: %d resources, %v; want %d", what, len(list), err, c.want)
			}
		})
		if allocations > n { // one to decode takes three
			t.Errorf("%s: %v allocations for %d resources", what, allocations, c.want)
		}
	}
}

func messages(list []encoded.Resource) (all []*resourcepb.Resource) {
	for _, r := range list {
		all = append(all, r.Message())
	}
	return all
}

func events(resources []*resourcepb.Resource) (all []*state.Event) {
	for _, r := range resources {
		all = append(all, &state.Event{Resource: r})
	}
	return all
}

func TestWhatCannotBeEncodedStaysAsItIs(t *testing.T) {
	s, _, _ := pair(t)
	for i := range 3 {
		r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: things.Namespace, Type: things.Type, Id: fmt.Sprint("\xff", i)}}
		if _, err := s.Create(t.Context(), r, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Get(t.Context(), state.Pointer{Kind: things, ID: "\xff0"}); err != nil || got.GetMetadata().GetVersion() != "1" {
		t.Errorf("get: %v, %v", got, err)
	}
}

func TestAnEncodedResourceIsFullWeightInTheHistory(t *testing.T) {
	s, a, _ := pair(t)
	if _, err := s.Update(t.Context(), a, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	h := &s.kind(things).history
	if got, want := h.at(h.end-1).weight, 2*weigh(a); got != want {
		t.Errorf("an update of an encoded resource weighs %d; want %d, what it was and what it is", got, want)
	}
}
