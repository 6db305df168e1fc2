package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// ErrFinalizers says that others still hold an output that is being torn down. The controller is reconciled when they let go.
var ErrFinalizers = errors.New("others still hold it")

// Write makes the output typ/id hold spec: it creates or updates it, or does nothing when the content is the same already.
// The resource carries cause, if there is one, as the annotation Cause. An output that is being torn down is destroyed first;
// that is ErrFinalizers while others hold it.
func (s *State) Write(ctx context.Context, typ, id string, spec proto.Message, cause *resourcepb.Metadata) error {
	c := s.mustOutput(typ)
	e, ok := c.get(id)
	if ok && e.resource.GetMetadata().GetPhase() == phaseTearingDown {
		if err := s.Delete(ctx, typ, id); err != nil {
			return err
		}
		ok = false
	}
	if ok && proto.Equal(e.spec, spec) {
		return nil
	}
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err == nil {
		err = s.write(ctx, c, e.resource, ok, &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{
				Namespace: c.namespace, Type: typ, Id: id, Owner: s.plugin, Version: "1", Phase: "running", Annotations: annotations(cause),
			},
			Spec: &resourcepb.Spec{ProtoSpec: content},
		})
	}
	if err != nil {
		return fmt.Errorf("write %s %q: %w", typ, id, err)
	}
	return nil
}

// write creates r, or updates old to it when exists. What it believes of the runtime may be out of date: then it looks.
func (s *State) write(ctx context.Context, c *cache, old *resourcepb.Resource, exists bool, r *resourcepb.Resource) error {
	for try := 0; ; try++ {
		var err error
		if exists {
			old, err = s.update(ctx, old, func(n *resourcepb.Resource) {
				n.Spec = r.Spec
				n.Metadata.Annotations = merge(n.Metadata.Annotations, r.Metadata.Annotations)
			})
			if err == nil {
				s.wrote(c, c.updated(old))
				return nil
			}
		} else {
			var response *resourcepb.CreateResponse
			response, err = s.client.Create(ctx, &resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{Owner: s.plugin}})
			if err == nil {
				s.wrote(c, c.created(response.GetResource()))
				return nil
			}
		}
		code := status.Code(err)
		if try == tries || code != codes.AlreadyExists && code != codes.NotFound && code != codes.FailedPrecondition {
			return err
		}
		old, err = s.get(ctx, r.GetMetadata().GetNamespace(), r.GetMetadata().GetType(), r.GetMetadata().GetId())
		exists = err == nil
		if err != nil && status.Code(err) != codes.NotFound {
			return err
		}
		if owner := old.GetMetadata().GetOwner(); exists && owner != s.plugin {
			return fmt.Errorf("it is owned by %q", owner)
		}
		if exists && bytes.Equal(old.GetSpec().GetProtoSpec(), r.GetSpec().GetProtoSpec()) {
			// An earlier write whose answer was lost with the runtime: it is there.
			c.updated(old)
			return nil
		}
	}
}

// Delete removes an output. One that is not there, or not the plugin's, is no error. While others hold it with finalizers it is
// left tearing down, and the error is ErrFinalizers.
func (s *State) Delete(ctx context.Context, typ, id string) error {
	c := s.mustOutput(typ)
	if e, ok := c.get(id); !c.events && (!ok || e.resource.GetMetadata().GetOwner() != s.plugin) {
		return nil
	}
	_, err := s.client.Destroy(ctx, &resourcepb.DestroyRequest{
		Namespace: c.namespace, Type: typ, Id: id, Options: &resourcepb.DestroyOptions{Owner: s.plugin},
	})
	switch status.Code(err) {
	case codes.OK, codes.NotFound:
		s.wrote(c, c.destroyed(id))
		return nil
	case codes.PermissionDenied:
		if c.events { // it is not known whose it is
			return nil
		}
	case codes.FailedPrecondition:
		_, err = s.client.Teardown(ctx, &resourcepb.TeardownRequest{
			Namespace: c.namespace, Type: typ, Id: id, Options: &resourcepb.TeardownOptions{Owner: s.plugin},
		})
		if err == nil {
			err = ErrFinalizers
		}
	}
	return fmt.Errorf("delete %s %q: %w", typ, id, err)
}

// Outputs returns the ids of the resources of an output that the plugin owns, sorted. A controller deletes those that nothing
// asks for any more.
func (s *State) Outputs(typ string) []string {
	var ids []string
	for _, e := range s.mustOutput(typ).kept().list() {
		if e.resource.GetMetadata().GetOwner() == s.plugin {
			ids = append(ids, e.resource.GetMetadata().GetId())
		}
	}
	return ids
}

func (s *State) mustOutput(typ string) *cache {
	if !slices.Contains(s.outputs, typ) {
		panic(fmt.Sprintf("sdk: %s is not an output of the controller", typ))
	}
	return s.cache(typ)
}

func annotations(cause *resourcepb.Metadata) map[string]string {
	if cause == nil {
		return nil
	}
	return map[string]string{Cause: fmt.Sprintf("%s/%s@%s", cause.GetType(), cause.GetId(), cause.GetVersion())}
}

func merge(into, from map[string]string) map[string]string {
	if into == nil {
		return from
	}
	for key, value := range from {
		into[key] = value
	}
	return into
}
