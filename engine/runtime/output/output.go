// Package output writes the resources that the runtime owns: statuses and logs. It is the runtime's own controllers' hand, below the
// access layer.
package output

import (
	"bytes"
	"context"
	"errors"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// Owner owns what the runtime writes.
const Owner = "runtime"

// Writer writes resources owned by Owner.
type Writer struct{ state state.State }

// New returns a Writer to s.
func New(s state.State) Writer { return Writer{s} }

// Put creates p with the content spec, or updates it if its content differs. What is torn down stays as it is.
func (w Writer) Put(ctx context.Context, p state.Pointer, spec proto.Message) error {
	return w.put(ctx, p, spec, false)
}

// Append updates p though its content may be the same: each version is an entry of its own, as in a log.
func (w Writer) Append(ctx context.Context, p state.Pointer, spec proto.Message) error {
	return w.put(ctx, p, spec, true)
}

func (w Writer) put(ctx context.Context, p state.Pointer, spec proto.Message, always bool) error {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return err
	}
	for {
		err := w.try(ctx, p, content, always)
		if !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrExists) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (w Writer) try(ctx context.Context, p state.Pointer, content []byte, always bool) error {
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: p.Namespace, Type: p.Type, Id: p.ID, Owner: Owner, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	old, err := w.state.Get(ctx, p)
	if errors.Is(err, state.ErrNotFound) {
		_, err = w.state.Create(ctx, r, state.WriteOptions{Owner: Owner})
		return err
	}
	if err != nil {
		return err
	}
	if !always && bytes.Equal(old.GetSpec().GetProtoSpec(), content) {
		return nil
	}
	r.Metadata = proto.CloneOf(old.GetMetadata())
	_, err = w.state.Update(ctx, r, state.WriteOptions{Owner: Owner})
	return err
}

// Delete removes p if it is there.
func (w Writer) Delete(ctx context.Context, p state.Pointer) error {
	err := w.state.Destroy(ctx, p, state.WriteOptions{Owner: Owner})
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	return err
}
