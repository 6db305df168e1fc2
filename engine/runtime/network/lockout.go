package network

import (
	"context"
	"fmt"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// CheckCertificates is the schema.Check of Certificates: what would leave the node closed after its next boot is not written.
func CheckCertificates(content []byte) error {
	c := &machinepb.Certificates{}
	if err := proto.Unmarshal(content, c); err != nil {
		return err
	}
	_, err := parseTrust(nil, c, nil)
	return err
}

// keeper is the state of a connection, without writes after which the connection's own certificate would be refused. Since
// Certificates are an admin's to write, at least one admin can always connect: the last who wrote them. To
// replace a CA, add the new one, connect with a certificate of it, and then remove the old.
type keeper struct {
	state.State
	conn *trackedConn
}

func guards(p state.Pointer) bool { return p.Kind == Certificates && p.ID == Node }

func (k keeper) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return k.write(ctx, r, o, k.State.Create)
}

func (k keeper) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	return k.write(ctx, r, o, k.State.Update)
}

// write looks at what a dry run makes of r: it may have come in either form.
func (k keeper) write(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions, next func(context.Context, *resourcepb.Resource, state.WriteOptions) (*resourcepb.Resource, error)) (*resourcepb.Resource, error) {
	if !guards(state.PointerTo(r)) {
		return next(ctx, r, o)
	}
	dry := o
	dry.DryRun = true
	tried, err := next(ctx, r, dry)
	if err != nil {
		return nil, err
	}
	if err := k.keeps(tried); err != nil || o.DryRun {
		return tried, err
	}
	return next(ctx, r, o)
}

// keeps fails with a state.FieldError when r would refuse the connection's certificate.
func (k keeper) keeps(r *resourcepb.Resource) error {
	c := &machinepb.Certificates{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), c); err != nil {
		return err
	}
	t, err := parseTrust(r.GetMetadata(), c, nil)
	if err != nil {
		return err
	}
	if _, _, err := t.verify(k.conn.chain, k.conn.gate.Now()); err != nil {
		return &state.FieldError{Path: "spec", Message: fmt.Sprintf(
			"this would lock you out (%v): first add the new CA and connect with a certificate of it, then remove the old", err)}
	}
	return nil
}

func (k keeper) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if guards(p) {
		return locksOut(p)
	}
	return k.State.Destroy(ctx, p, o)
}

func (k keeper) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	if guards(p) {
		return nil, locksOut(p)
	}
	return k.State.Teardown(ctx, p, o)
}

func locksOut(p state.Pointer) error {
	return fmt.Errorf("%w: without %s nobody could connect any more, you included", state.ErrInvalid, p)
}
