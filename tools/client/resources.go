package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// Get returns one resource.
func (c *Client) Get(ctx context.Context, k *kinds.Kind, id string) (*resourcepb.Resource, error) {
	response, err := c.State.Get(ctx, &resourcepb.GetRequest{Namespace: k.Namespace(), Type: k.Type(), Id: id})
	if err != nil {
		return nil, explainFor(k, id, err)
	}
	return response.GetResource(), nil
}

// List returns the resources of a kind that a query selects (none: all), in the order of their ids.
func (c *Client) List(ctx context.Context, k *kinds.Kind, queries ...*resourcepb.LabelQuery) ([]*resourcepb.Resource, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.State.List(ctx, &resourcepb.ListRequest{
		Namespace: k.Namespace(), Type: k.Type(), Options: &resourcepb.ListOptions{LabelQuery: queries},
	})
	if err != nil {
		return nil, Explain(err)
	}
	var all []*resourcepb.Resource
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, Explain(err)
		}
		all = append(all, response.GetResource())
	}
}

// Outcome is what Apply did.
type Outcome string

// Outcomes of Apply.
const (
	Created   Outcome = "created"
	Updated   Outcome = "updated"
	Unchanged Outcome = "unchanged"
)

// ErrTearingDown says that a resource is on its way out and takes no changes.
var ErrTearingDown = errors.New("is being deleted")

// phaseTearingDown is the phase of such a resource.
const phaseTearingDown = "tearingDown"

// attempts is how often Apply tries again when somebody else wrote in between.
const attempts = 5

// Apply makes the node's resource what r says: labels, annotations (those of the node's own are kept) and content. It returns the
// resource as it is then. A resource that is being deleted is left alone: ErrTearingDown.
func (c *Client) Apply(ctx context.Context, k *kinds.Kind, r *resourcepb.Resource) (Outcome, *resourcepb.Resource, error) {
	var err error
	for range attempts {
		var outcome Outcome
		var result *resourcepb.Resource
		outcome, result, err = c.applyOnce(ctx, k, r)
		switch Code(err) {
		case codes.OK:
			return outcome, result, nil
		case codes.AlreadyExists, codes.FailedPrecondition:
			continue // somebody was faster
		}
		break
	}
	return "", nil, Explain(err)
}

func (c *Client) applyOnce(ctx context.Context, k *kinds.Kind, r *resourcepb.Resource) (Outcome, *resourcepb.Resource, error) {
	old, err := c.Get(ctx, k, r.GetMetadata().GetId())
	if Code(err) == codes.NotFound {
		response, err := c.State.Create(ctx, &resourcepb.CreateRequest{Resource: r})
		return Created, response.GetResource(), err
	}
	if err != nil {
		return "", nil, err
	}
	if m := old.GetMetadata(); m.GetPhase() == phaseTearingDown {
		return "", nil, fmt.Errorf("%w and held by %s: apply it again once it is gone", ErrTearingDown, strings.Join(m.GetFinalizers(), ", "))
	}
	fresh := Merge(old, r)
	if same(k, old, fresh) {
		return Unchanged, old, nil
	}
	response, err := c.State.Update(ctx, &resourcepb.UpdateRequest{NewResource: fresh})
	return Updated, response.GetResource(), err
}

// nodePrefix begins the labels and annotations that COSI itself writes: an apply that does not name one leaves it.
const nodePrefix = "cosi.dev/"

// Merge returns old as an Apply of r would leave it.
func Merge(old, r *resourcepb.Resource) *resourcepb.Resource {
	fresh := proto.Clone(old).(*resourcepb.Resource)
	fresh.Metadata.Labels = keepNodes(r.GetMetadata().GetLabels(), old.GetMetadata().GetLabels())
	fresh.Metadata.Annotations = keepNodes(r.GetMetadata().GetAnnotations(), old.GetMetadata().GetAnnotations())
	fresh.Spec = r.GetSpec()
	return fresh
}

// keepNodes returns wanted with what begins as the node's own and was there.
func keepNodes(wanted, old map[string]string) map[string]string {
	fresh := maps.Clone(wanted)
	for key, value := range old {
		if _, set := fresh[key]; !set && strings.HasPrefix(key, nodePrefix) {
			if fresh == nil {
				fresh = map[string]string{}
			}
			fresh[key] = value
		}
	}
	return fresh
}

func same(k *kinds.Kind, a, b *resourcepb.Resource) bool {
	if !maps.Equal(a.GetMetadata().GetLabels(), b.GetMetadata().GetLabels()) || !maps.Equal(a.GetMetadata().GetAnnotations(), b.GetMetadata().GetAnnotations()) {
		return false
	}
	left, err := k.Unmarshal(a.GetSpec().GetProtoSpec())
	if err != nil {
		return false
	}
	right, err := k.Unmarshal(b.GetSpec().GetProtoSpec())
	return err == nil && proto.Equal(left.Interface(), right.Interface())
}

// Delete tears a resource down, waits until everybody has let go of it, and destroys it. When ctx ends first, it stays tearing down.
func (c *Client) Delete(ctx context.Context, k *kinds.Kind, id string) error {
	_, err := c.State.TeardownAndDestroy(ctx, &resourcepb.TeardownAndDestroyRequest{Namespace: k.Namespace(), Type: k.Type(), Id: id})
	return explainFor(k, id, err)
}
