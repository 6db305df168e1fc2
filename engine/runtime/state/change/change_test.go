package change_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
)

var (
	birth = time.Unix(1_000, 0)
	later = time.Unix(2_000, 0)
)

func stored(edit func(*resourcepb.Metadata)) *resourcepb.Resource {
	m := &resourcepb.Metadata{
		Namespace: "config", Type: "Things.test.cosi.dev", Id: "a", Version: "9", Owner: "mount", Phase: state.PhaseRunning,
		Created: timestamppb.New(birth), Updated: timestamppb.New(birth),
	}
	edit(m)
	return &resourcepb.Resource{Metadata: m, Spec: &resourcepb.Spec{ProtoSpec: []byte("x")}}
}

func asIs(*resourcepb.Metadata) {}

func TestWritesLeaveWhatTheyTakeAsItWas(t *testing.T) {
	current, given := stored(asIs), stored(func(m *resourcepb.Metadata) { m.Finalizers = []string{"f"} })
	before, beforeGiven := proto.CloneOf(current), proto.CloneOf(given)
	o := state.WriteOptions{Owner: "mount"}
	if _, err := change.Update(current, given, o, later); err != nil {
		t.Fatal(err)
	}
	if _, err := change.Teardown(current, o, later); err != nil {
		t.Fatal(err)
	}
	if _, err := change.Destroy(current, o); err != nil {
		t.Fatal(err)
	}
	if _, err := change.Create(nil, given, o, later); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(current, before) || !proto.Equal(given, beforeGiven) {
		t.Errorf("current %v, given %v; want them unchanged", current, given)
	}
}

func TestTimesComeFromTheClock(t *testing.T) {
	o := state.WriteOptions{Owner: "mount"}
	created, err := change.Create(nil, stored(func(m *resourcepb.Metadata) { m.Created = nil }), o, birth)
	if err != nil {
		t.Fatal(err)
	}
	updated, err := change.Update(created.After, created.After, o, later)
	if err != nil {
		t.Fatal(err)
	}
	torn, err := change.Teardown(updated.After, o, later.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after   *resourcepb.Resource
		updated time.Time
	}{{created.After, birth}, {updated.After, later}, {torn.After, later.Add(time.Hour)}} {
		m := c.after.GetMetadata()
		if !m.GetCreated().AsTime().Equal(birth) || !m.GetUpdated().AsTime().Equal(c.updated) {
			t.Errorf("version %s: created %v, updated %v; want %v, %v", m.GetVersion(), m.GetCreated(), m.GetUpdated(), birth, c.updated)
		}
	}
}

func TestVersionsAreDecimal(t *testing.T) {
	c, err := change.Update(stored(asIs), stored(asIs), state.WriteOptions{Owner: "mount"}, later)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.After.GetMetadata().GetVersion(); got != "10" {
		t.Errorf("version after 9 = %q; want 10", got)
	}
}

func TestEventsOfChanges(t *testing.T) {
	a, b := stored(asIs), stored(asIs)
	for _, c := range []struct {
		change change.Change
		want   *state.Event
	}{
		{change.Change{After: a}, &state.Event{EventType: resourcepb.EventType_CREATED, Resource: a, Bookmark: []byte("m")}},
		{change.Change{Before: a, After: b}, &state.Event{EventType: resourcepb.EventType_UPDATED, Resource: b, Old: a, Bookmark: []byte("m")}},
		{change.Change{Before: a}, &state.Event{EventType: resourcepb.EventType_DESTROYED, Resource: a, Bookmark: []byte("m")}},
	} {
		if got := c.change.Event([]byte("m")); !proto.Equal(got, c.want) {
			t.Errorf("Event() = %v; want %v", got, c.want)
		}
		if got, want := c.change.Pointer(), state.PointerTo(a); got != want || c.change.None() {
			t.Errorf("Pointer() = %v, None() = %v; want %v, false", got, c.change.None(), want)
		}
	}
}

func TestARepeatedTeardownIsNoChange(t *testing.T) {
	current := stored(func(m *resourcepb.Metadata) { m.Phase = state.PhaseTearingDown })
	c, err := change.Teardown(current, state.WriteOptions{Owner: "mount"}, later)
	if err != nil || !c.None() || c.After != current {
		t.Errorf("Teardown() = %v, %v; want no change", c, err)
	}
}

func TestAPhaseMayComeBackButNotBeInvented(t *testing.T) {
	current := stored(func(m *resourcepb.Metadata) { m.Phase = state.PhaseTearingDown })
	o := state.WriteOptions{Owner: "mount"}
	if _, err := change.Update(current, stored(asIs), o, later); err != nil {
		t.Errorf("Update to running = %v", err)
	}
	_, err := change.Update(current, stored(func(m *resourcepb.Metadata) { m.Phase = "walking" }), o, later)
	var field *state.FieldError
	if !errors.As(err, &field) || field.Path != "metadata.phase" {
		t.Errorf("Update to walking = %v; want an error of metadata.phase", err)
	}
}

// FuzzWrites: whatever metadata comes in, a write is refused with a sentinel or keeps the invariants of a resource.
func FuzzWrites(f *testing.F) {
	f.Add("config", "T", "a", "9", "mount", "running", "mount", "")
	f.Add("", "", "", "", "", "", "", "tearingDown")
	f.Add("config", "T", "a", "18446744073709551615", "", "walking", "mount", "running")
	f.Fuzz(func(t *testing.T, namespace, typ, id, version, owner, phase, writer, expected string) {
		r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{
			Namespace: namespace, Type: typ, Id: id, Version: version, Owner: owner, Phase: phase,
		}}
		o := state.WriteOptions{Owner: writer, Phase: expected}
		created, err := change.Create(nil, r, o, birth)
		check(t, created, err, "1", writer)
		updated, err := change.Update(stored(asIs), r, o, later)
		check(t, updated, err, "10", "mount")
	})
}

func check(t *testing.T, c change.Change, err error, version, owner string) {
	t.Helper()
	if err != nil {
		if state.SentinelOf(err) == nil {
			t.Fatalf("%v wraps no sentinel", err)
		}
		return
	}
	m := c.After.GetMetadata()
	if m.GetVersion() != version || m.GetOwner() != owner || !m.GetCreated().AsTime().Equal(birth) {
		t.Fatalf("accepted as %v; want version %s, owner %q, created %v", m, version, owner, birth)
	}
	if p := m.GetPhase(); p != state.PhaseRunning && p != state.PhaseTearingDown {
		t.Fatalf("accepted with the phase %q", p)
	}
}
