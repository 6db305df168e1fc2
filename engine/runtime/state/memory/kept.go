package memory

import (
	"fmt"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// Kept is a resource as a table keeps it: as it was written while its last change is in the history, which has it anyway, and encoded from
// then on. That is half the memory, and a large table has few pointers for the garbage collector to follow.
type Kept struct {
	id       string
	resource *resourcepb.Resource // nil: it is encoded, or gone
	encoded  string
}

// Keep returns r.
func Keep(r *resourcepb.Resource) Kept { return Kept{id: r.GetMetadata().GetId(), resource: r} }

// KeepEncoded returns the resource that data is the encoding of. It fails when data is none, or has no namespace, type or id.
func KeepEncoded(data []byte) (Kept, state.Kind, error) {
	k := Kept{encoded: string(data)}
	r, err := encoded.Decode(k.encoded)
	if err != nil {
		return Kept{}, state.Kind{}, err
	}
	p := state.PointerTo(r)
	if p.Namespace == "" || p.Type == "" || p.ID == "" {
		return Kept{}, state.Kind{}, fmt.Errorf("%w: the resource has no name", state.ErrInvalid)
	}
	k.id = strings.Clone(p.ID) // the id of an entry outlives this version
	return k, p.Kind, nil
}

// ID returns that of the resource.
func (k Kept) ID() string { return k.id }

// Resource returns the resource, nil if it is gone.
func (k Kept) Resource() *resourcepb.Resource {
	if k.resource != nil || k.encoded == "" {
		return k.resource
	}
	r, err := encoded.Decode(k.encoded)
	if err != nil {
		panic(fmt.Sprintf("memory: %q was encoded here: %v", k.id, err))
	}
	return r
}

// Append appends the resource in its encoded form. It fails when a text of it is not UTF-8.
func (k Kept) Append(b []byte) ([]byte, error) {
	if k.resource == nil {
		return append(b, k.encoded...), nil
	}
	return encoded.Append(b, k.resource)
}

func (k Kept) gone() bool { return k.resource == nil && k.encoded == "" }

// encode makes k encoded. One with a text that cannot be stays as it is.
func (k *Kept) encode() {
	if data, err := encoded.String(k.resource); err == nil {
		k.resource, k.encoded = nil, data
	}
}
