// Package statetest is the conformance suite of state.State: what every store, every layer in front of one, and the gRPC service
// must do. Tests call Run. Client makes the service a State again, so that the suite also runs over a real connection; there WireRules
// hold besides. cosi-conformance checks the same rules against any server.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// HistoryEvents is how many events of each kind the states under test keep: few, so that tests can outrun them.
const HistoryEvents = 64

// The kinds that the suite writes. Their resources have no schema; the content is arbitrary bytes.
var (
	kind      = state.Kind{Namespace: "default", Type: "Things.test.cosi.dev"}
	otherKind = state.Kind{Namespace: "default", Type: "OtherThings.test.cosi.dev"}
)

// patience is how long a test waits for an event that must come.
const patience = 60 * time.Second

// T is what a rule says what is wrong with. A *testing.T is one. Fatalf does not return.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Rule is one thing that a State does.
type Rule struct {
	// Name is the sentence.
	Name string
	// Extended rules go beyond what servers of the API that exist do.
	Extended bool
	// Outruns rules write more events than the state keeps.
	Outruns bool

	check func(*fixture)
}

// Check checks the rule against a state that holds nothing of the suite's kinds and keeps history events of each.
func (r Rule) Check(ctx context.Context, t T, s state.State, history int) {
	r.check(&fixture{T: t, State: s, ctx: ctx, history: history})
}

// Rules returns the rules of every State.
func Rules() []Rule {
	return slices.Concat(creating, updating, destroying, reading, selecting, watchingOne, watchingKinds, resuming, failing)
}

// Run checks every rule against a state of its own, made by empty: one that holds nothing of the suite's kinds and keeps
// HistoryEvents events of each.
func Run(t *testing.T, empty func(*testing.T) state.State) { run(t, empty, Rules()) }

// RunStore is Run for a store, which also takes what does not go over a connection.
func RunStore(t *testing.T, empty func(*testing.T) state.State) {
	Run(t, empty)
	run(t, empty, alongside)
}

func run(t *testing.T, empty func(*testing.T) state.State, rules []Rule) {
	for _, r := range rules {
		t.Run(r.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r.Check(ctx, t, empty(t), HistoryEvents)
		})
	}
}

// fixture is a state under test.
type fixture struct {
	T
	state.State
	ctx     context.Context
	history int
}

func pointer(id string) state.Pointer { return state.Pointer{Kind: kind, ID: id} }

// thing returns a resource with labels in the form "key=value".
func thing(id string, labels ...string) *resourcepb.Resource {
	m := &resourcepb.Metadata{Namespace: kind.Namespace, Type: kind.Type, Id: id}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[key] = value
	}
	return &resourcepb.Resource{Metadata: m, Spec: &resourcepb.Spec{ProtoSpec: []byte("content of " + id)}}
}

// edited returns a copy of r's top with another metadata.
func edited(r *resourcepb.Resource, edit func(*resourcepb.Metadata)) *resourcepb.Resource {
	m := r.GetMetadata()
	c := &resourcepb.Metadata{
		Namespace: m.GetNamespace(), Type: m.GetType(), Id: m.GetId(), Version: m.GetVersion(), Owner: m.GetOwner(), Phase: m.GetPhase(),
		Created: m.GetCreated(), Updated: m.GetUpdated(), Finalizers: m.GetFinalizers(), Labels: m.GetLabels(), Annotations: m.GetAnnotations(),
	}
	edit(c)
	return &resourcepb.Resource{Metadata: c, Spec: r.GetSpec()}
}

func withFinalizers(r *resourcepb.Resource, names ...string) *resourcepb.Resource {
	return edited(r, func(m *resourcepb.Metadata) { m.Finalizers = names })
}

func (f *fixture) create(r *resourcepb.Resource) *resourcepb.Resource {
	f.Helper()
	created, err := f.Create(f.ctx, r, state.WriteOptions{Owner: r.GetMetadata().GetOwner()})
	if err != nil {
		f.Fatalf("Create(%s) = %v", r.GetMetadata().GetId(), err)
	}
	return created
}

func (f *fixture) update(r *resourcepb.Resource) *resourcepb.Resource {
	f.Helper()
	updated, err := f.Update(f.ctx, r, state.WriteOptions{Owner: r.GetMetadata().GetOwner()})
	if err != nil {
		f.Fatalf("Update(%s) = %v", r.GetMetadata().GetId(), err)
	}
	return updated
}

func (f *fixture) destroy(id string) {
	f.Helper()
	if err := f.Destroy(f.ctx, pointer(id), state.WriteOptions{}); err != nil {
		f.Fatalf("Destroy(%s) = %v", id, err)
	}
}

func (f *fixture) get(id string) *resourcepb.Resource {
	f.Helper()
	r, err := f.Get(f.ctx, pointer(id))
	if err != nil {
		f.Fatalf("Get(%s) = %v", id, err)
	}
	return r
}

// fails checks that err is the sentinel want.
func (f *fixture) fails(what string, err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s = %v; want %v", what, err, want)
	}
}

func (f *fixture) equal(what string, got, want any) {
	f.Helper()
	if got != want {
		f.Errorf("%s = %v; want %v", what, got, want)
	}
}

// ids lists the ids that q selects.
func (f *fixture) ids(q state.Query) string {
	f.Helper()
	all, err := f.List(f.ctx, kind, q)
	if err != nil {
		f.Fatalf("List(%v) = %v", q, err)
	}
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ID())
	}
	return strings.Join(ids, " ")
}

// watcher reads a watch event by event.
type watcher struct {
	f     *fixture
	watch state.Watch
	ready []*state.Event
}

func (f *fixture) watch(w state.WatchRequest) *watcher {
	f.Helper()
	if w.Kind == (state.Kind{}) {
		w.Kind = kind
	}
	running, err := f.Watch(f.ctx, w)
	if err != nil {
		f.Fatalf("Watch(%+v) = %v", w, err)
	}
	return &watcher{f: f, watch: running}
}

func (w *watcher) next() *state.Event {
	w.f.Helper()
	for len(w.ready) == 0 {
		events, err := w.watch.Next(w.f.ctx)
		if err != nil {
			w.f.Fatalf("Next() = %v", err)
		}
		w.ready = events
	}
	e := w.ready[0]
	w.ready = w.ready[1:]
	return e
}

// expect checks the next events, written as "TYPE id@version", then "<version" of the old resource where there is one and "*" where
// there is a bookmark. It returns the last of them.
func (w *watcher) expect(events ...string) *state.Event {
	w.f.Helper()
	var e *state.Event
	for _, want := range events {
		e = w.next()
		if got := describe(e); got != want {
			w.f.Fatalf("event %q; want %q", got, want)
		}
	}
	return e
}

func describe(e *state.Event) string {
	m := e.GetResource().GetMetadata()
	s := fmt.Sprintf("%v %s@%s", e.GetEventType(), m.GetId(), m.GetVersion())
	if e.GetOld() != nil {
		s += "<" + e.GetOld().GetMetadata().GetVersion()
	}
	if e.GetBookmark() != nil {
		s += "*"
	}
	return s
}
