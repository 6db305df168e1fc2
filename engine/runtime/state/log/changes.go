package log

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/change"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
)

// A change is one of
//
//	1, length, the resource as it is after it (cosi.resource.Resource)
//	2, length, namespace, length, type, length, id of the resource that is destroyed
//
// with lengths as varints. What was there before stands in an earlier change, or in the snapshot.
const (
	opPut     = 1
	opDestroy = 2
)

var errContent = errors.New("the content is not a change")

// appendChange encodes c.
func appendChange(b []byte, c change.Change) ([]byte, error) {
	if c.After == nil {
		p := c.Pointer()
		b = append(b, opDestroy)
		for _, s := range []string{p.Namespace, p.Type, p.ID} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
		return b, nil
	}
	return encoded.AppendDelimited(append(b, opPut), c.After)
}

// decoder takes changes and resources out of content. What many resources have in common, it makes one string.
type decoder struct{ strings map[string]string }

func newDecoder() *decoder { return &decoder{strings: map[string]string{}} }

// change decodes the first change of b: what it names and, unless that is destroyed, what it is afterwards.
func (d *decoder) change(b []byte) (p state.Pointer, after *resourcepb.Resource, rest []byte, err error) {
	if len(b) == 0 {
		return p, nil, nil, errContent
	}
	switch b[0] {
	case opPut:
		if after, rest, err = d.resource(b[1:]); err != nil {
			return p, nil, nil, err
		}
		return state.PointerTo(after), after, rest, nil
	case opDestroy:
		rest = b[1:]
		for _, s := range []*string{&p.Namespace, &p.Type, &p.ID} {
			var field []byte
			if field, rest, err = cut(rest); err != nil {
				return p, nil, nil, err
			}
			*s = string(field)
		}
		return p, nil, rest, nil
	default:
		return p, nil, nil, fmt.Errorf("%w: it begins with %d", errContent, b[0])
	}
}

// replay applies a change that was decoded. It fails when it destroys what is not there.
func replay(t *memory.Table, sequence uint64, p state.Pointer, after *resourcepb.Resource) error {
	c := change.Change{Before: t.Lookup(p), After: after}
	if c.None() {
		return fmt.Errorf("%w: %s is destroyed and is not there", errContent, p)
	}
	t.Apply(sequence, c)
	return nil
}

// resource decodes a resource with its length in front.
func (d *decoder) resource(b []byte) (*resourcepb.Resource, []byte, error) {
	encoded, rest, err := cut(b)
	if err != nil {
		return nil, nil, err
	}
	r := &resourcepb.Resource{}
	if err := proto.Unmarshal(encoded, r); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errContent, err)
	}
	m := r.GetMetadata()
	if m.GetNamespace() == "" || m.GetType() == "" || m.GetId() == "" {
		return nil, nil, fmt.Errorf("%w: the resource has no name", errContent)
	}
	for _, s := range []*string{&m.Namespace, &m.Type, &m.Version, &m.Owner, &m.Phase} {
		*s = d.one(*s)
	}
	if c, u := m.GetCreated(), m.GetUpdated(); c.GetSeconds() == u.GetSeconds() && c.GetNanos() == u.GetNanos() {
		m.Updated = m.GetCreated()
	}
	return r, rest, nil
}

// one returns a string that equals s and is shared with others, as long as there are few.
func (d *decoder) one(s string) string {
	if known, ok := d.strings[s]; ok {
		return known
	}
	if len(d.strings) < 4096 {
		d.strings[s] = s
	}
	return s
}

// cut takes a length and that many bytes off b.
func cut(b []byte) (field, rest []byte, err error) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return nil, nil, fmt.Errorf("%w: it is cut short", errContent)
	}
	return b[n : n+int(length)], b[n+int(length):], nil
}
