package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
)

const (
	metaNamespace  = "meta"
	definitionType = "ResourceDefinitions.meta.cosi.dev"
)

// kindCache knows the node's kinds. What the node says wins over what this program was built with, since the node may be newer.
type kindCache struct {
	state   resourcepb.StateClient
	builtin *kinds.Set

	mu     sync.Mutex
	byType map[string]*kinds.Kind
	set    *kinds.Set // all of the node's kinds, once they were listed
}

func newKindCache(state resourcepb.StateClient) *kindCache {
	return &kindCache{state: state, builtin: builtin.Set(), byType: map[string]*kinds.Kind{}}
}

// lookup asks for one definition where that is enough: all of them are megabytes.
func (c *kindCache) lookup(ctx context.Context, name string) (*kinds.Kind, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set != nil {
		return c.set.Lookup(name)
	}
	known, err := c.builtin.Lookup(name)
	if err != nil {
		set, listErr := c.listAll(ctx)
		if listErr != nil {
			return nil, listErr
		}
		return set.Lookup(name)
	}
	if k, ok := c.byType[known.Type()]; ok {
		return k, nil
	}
	response, err := c.state.Get(ctx, &resourcepb.GetRequest{Namespace: metaNamespace, Type: definitionType, Id: known.ID()})
	if err != nil {
		if !noDefinitions(err) {
			return nil, Explain(err)
		}
		return known, nil
	}
	k := c.kind(descriptors.Reader{}, response.GetResource())
	if k == nil {
		k = known
	}
	c.byType[known.Type()] = k
	return k, nil
}

// noDefinitions reports whether the error means that the node keeps none, not that it cannot be reached.
func noDefinitions(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.Unimplemented, codes.PermissionDenied, codes.InvalidArgument:
		return true
	}
	return false
}

// kind returns the kind of a ResourceDefinitions resource. Without descriptors it is one of ours, or nil.
func (c *kindCache) kind(reader descriptors.Reader, r *resourcepb.Resource) *kinds.Kind {
	d := &metapb.ResourceDefinitionSpec{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), d); err != nil {
		return nil
	}
	known := c.builtin.ByType(d.GetResourceType())
	if len(d.GetDescriptors()) == 0 {
		return known
	}
	k, err := reader.Kind(d)
	if err != nil {
		return known
	}
	return k
}

func (c *kindCache) all(ctx context.Context) (*kinds.Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listAll(ctx)
}

// listAll needs mu.
func (c *kindCache) listAll(ctx context.Context) (*kinds.Set, error) {
	if c.set != nil {
		return c.set, nil
	}
	found, err := c.list(ctx)
	if err != nil && !noDefinitions(err) {
		return nil, Explain(err)
	}
	set, err := kinds.NewSet(found...)
	if err != nil || len(found) == 0 {
		return c.builtin, nil
	}
	c.set = set
	return set, nil
}

func (c *kindCache) list(ctx context.Context) ([]*kinds.Kind, error) {
	stream, err := c.state.List(ctx, &resourcepb.ListRequest{Namespace: metaNamespace, Type: definitionType})
	if err != nil {
		return nil, err
	}
	var found []*kinds.Kind
	reader := descriptors.Reader{}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if k := c.kind(reader, response.GetResource()); k != nil {
			found = append(found, k)
		}
	}
}
