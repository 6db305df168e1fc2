// Package change decides what a write does to one resource, without doing it.
//
// Stores call it: the in-memory one applies the change at once, the durable one logs it first. Every rule about versions, owners,
// phases and finalizers stands here and nowhere else. The functions are pure: what they take is left as it was, and what they return
// shares labels, annotations, finalizers and content with it.
package change

import (
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Change is what a write does: it puts After in the place of Before.
type Change struct {
	Before *resourcepb.Resource // nil: After is created
	After  *resourcepb.Resource // nil: Before is destroyed
}

// None reports that the write changes nothing.
func (c Change) None() bool { return c.Before == c.After }

// Pointer names the resource that c is about.
func (c Change) Pointer() state.Pointer {
	if c.After == nil {
		return state.PointerTo(c.Before)
	}
	return state.PointerTo(c.After)
}

// Event is what watchers are told of c. A destroyed resource is shown as it last was.
func (c Change) Event(bookmark []byte) *state.Event {
	switch {
	case c.Before == nil:
		return &state.Event{EventType: resourcepb.EventType_CREATED, Resource: c.After, Bookmark: bookmark}
	case c.After == nil:
		return &state.Event{EventType: resourcepb.EventType_DESTROYED, Resource: c.Before, Bookmark: bookmark}
	default:
		return &state.Event{EventType: resourcepb.EventType_UPDATED, Resource: c.After, Old: c.Before, Bookmark: bookmark}
	}
}

// Create makes r, given what is there under its name. It fails with ErrInvalid when r has no name, an unknown phase, or an owner
// other than that of o, and with ErrExists when something is there.
func Create(current, r *resourcepb.Resource, o state.WriteOptions, now time.Time) (Change, error) {
	m := r.GetMetadata()
	if m.GetNamespace() == "" || m.GetType() == "" || m.GetId() == "" {
		return Change{}, fmt.Errorf("%w: a resource needs a namespace, a type and an id", state.ErrInvalid)
	}
	if current != nil {
		return Change{}, state.ErrExists
	}
	if m.GetOwner() != "" && m.GetOwner() != o.Owner {
		return Change{}, &state.FieldError{Path: "metadata.owner", Message: fmt.Sprintf("is %q, and the writer is %q", m.GetOwner(), o.Owner)}
	}
	phase, err := phaseOf(m, state.PhaseRunning)
	if err != nil {
		return Change{}, err
	}
	stamp := timestamppb.New(now)
	after := with(r, &resourcepb.Metadata{Version: "1", Owner: o.Owner, Phase: phase, Created: stamp, Updated: stamp})
	return Change{After: after}, nil
}

// Update puts r in the place of current. In this order: ErrNotFound, ErrOwner, ErrConflict, ErrPhase; then ErrInvalid when r has an
// unknown phase or another owner than current. An empty phase or owner keeps what there was.
func Update(current, r *resourcepb.Resource, o state.WriteOptions, now time.Time) (Change, error) {
	if err := mayWrite(current, o); err != nil {
		return Change{}, err
	}
	m, had := r.GetMetadata(), current.GetMetadata()
	if m.GetVersion() != had.GetVersion() {
		return Change{}, fmt.Errorf("%w: it is %s, not %q", state.ErrConflict, had.GetVersion(), m.GetVersion())
	}
	if o.Phase != "" && o.Phase != had.GetPhase() {
		return Change{}, fmt.Errorf("%w: it is %s, not %s", state.ErrPhase, had.GetPhase(), o.Phase)
	}
	if m.GetOwner() != "" && m.GetOwner() != had.GetOwner() {
		return Change{}, &state.FieldError{Path: "metadata.owner", Message: fmt.Sprintf("is %q, and an update does not change it", had.GetOwner())}
	}
	phase, err := phaseOf(m, had.GetPhase())
	if err != nil {
		return Change{}, err
	}
	after := with(r, &resourcepb.Metadata{
		Version: next(had.GetVersion()), Owner: had.GetOwner(), Phase: phase, Created: had.GetCreated(), Updated: timestamppb.New(now),
	})
	return Change{Before: current, After: after}, nil
}

// Teardown moves current to the phase tearingDown; where it is there already, nothing changes. ErrNotFound, ErrOwner.
func Teardown(current *resourcepb.Resource, o state.WriteOptions, now time.Time) (Change, error) {
	if err := mayWrite(current, o); err != nil {
		return Change{}, err
	}
	had := current.GetMetadata()
	if had.GetPhase() == state.PhaseTearingDown {
		return Change{Before: current, After: current}, nil
	}
	after := with(current, &resourcepb.Metadata{
		Version: next(had.GetVersion()), Owner: had.GetOwner(), Phase: state.PhaseTearingDown, Created: had.GetCreated(), Updated: timestamppb.New(now),
	})
	return Change{Before: current, After: after}, nil
}

// Destroy removes current: ErrNotFound, ErrOwner, ErrFinalizers.
func Destroy(current *resourcepb.Resource, o state.WriteOptions) (Change, error) {
	if err := mayWrite(current, o); err != nil {
		return Change{}, err
	}
	if left := current.GetMetadata().GetFinalizers(); len(left) > 0 {
		return Change{}, fmt.Errorf("%w: %q", state.ErrFinalizers, left)
	}
	return Change{Before: current}, nil
}

// All returns c and what o wants committed along with it, in this order. lookup finds what is there before any of it; it fails when a
// companion cannot be created, or when one resource is named twice.
func All(c Change, o state.WriteOptions, lookup func(state.Pointer) *resourcepb.Resource, now time.Time) ([]Change, error) {
	all := []Change{c}
	if o.Along == nil {
		return all, nil
	}
	named := map[state.Pointer]bool{c.Pointer(): true}
	for _, companion := range o.Along(c.Before, c.After) {
		p := companion.Pointer()
		if named[p] {
			return nil, fmt.Errorf("%w: along with it: %s is named twice in one commit", state.ErrInvalid, p)
		}
		named[p] = true
		if companion.Create == nil {
			if current := lookup(p); current != nil && len(current.GetMetadata().GetFinalizers()) == 0 {
				all = append(all, Change{Before: current})
			}
			continue
		}
		along, err := Create(lookup(p), companion.Create, state.WriteOptions{Owner: companion.Create.GetMetadata().GetOwner()}, now)
		if err != nil {
			return nil, fmt.Errorf("along with it: %s: %w", p, err)
		}
		all = append(all, along)
	}
	return all, nil
}

func mayWrite(current *resourcepb.Resource, o state.WriteOptions) error {
	if current == nil {
		return state.ErrNotFound
	}
	if owner := current.GetMetadata().GetOwner(); owner != o.Owner {
		return fmt.Errorf("%w: it is %q, not %q", state.ErrOwner, owner, o.Owner)
	}
	return nil
}

func phaseOf(m *resourcepb.Metadata, unset string) (string, error) {
	switch phase := m.GetPhase(); phase {
	case "":
		return unset, nil
	case state.PhaseRunning, state.PhaseTearingDown:
		return phase, nil
	default:
		return "", &state.FieldError{Path: "metadata.phase", Message: fmt.Sprintf("%q is not a phase (running or tearingDown)", phase)}
	}
}

// with returns r with m, in which all that r's writer decides is filled in.
func with(r *resourcepb.Resource, m *resourcepb.Metadata) *resourcepb.Resource {
	given := r.GetMetadata()
	m.Namespace, m.Type, m.Id = given.GetNamespace(), given.GetType(), given.GetId()
	m.Finalizers, m.Labels, m.Annotations = given.GetFinalizers(), given.GetLabels(), given.GetAnnotations()
	return &resourcepb.Resource{Metadata: m, Spec: r.GetSpec()}
}

// next returns the version after v, which is one that this package made.
func next(v string) string {
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		panic("change: a stored resource has the version " + strconv.Quote(v))
	}
	return strconv.FormatUint(n+1, 10)
}
