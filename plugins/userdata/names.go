package userdata

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	namespaceMeta  = "meta"
	kindDefinition = "ResourceDefinitions.meta.cosi.dev"
)

// kind is where resources of a type live.
type kind struct{ typ, namespace string }

// names finds kinds by the names that documents use. Full type names cost one Get, which is what a boot needs; only an alias has all
// definitions listed.
type names struct {
	client  resourcepb.StateClient
	known   map[string]kind
	display map[string]string // of a type, for hints
	listed  bool
}

// lookup returns the kind of that name, or an error that wraps kinds.ErrUnknown and names the nearest.
func (n *names) lookup(ctx context.Context, name string) (kind, error) {
	id := strings.ToLower(name)
	if k, ok := n.known[id]; ok {
		return k, nil
	}
	if n.known == nil {
		n.known, n.display = map[string]kind{}, map[string]string{}
	}
	if strings.Contains(id, ".") {
		got, err := n.client.Get(ctx, &resourcepb.GetRequest{Namespace: namespaceMeta, Type: kindDefinition, Id: id})
		if err == nil {
			return n.add(got.Resource, id)
		}
		if status.Code(err) != codes.NotFound {
			return kind{}, err
		}
	}
	if err := n.list(ctx); err != nil {
		return kind{}, err
	}
	if k, ok := n.known[id]; ok {
		return k, nil
	}
	unknown := fmt.Errorf("%w %q", kinds.ErrUnknown, name)
	if near := kinds.Nearest(name, slices.Sorted(maps.Values(n.display))); len(near) > 0 {
		unknown = fmt.Errorf("%w: did you mean %s?", unknown, strings.Join(near, ", "))
	}
	return kind{}, unknown
}

// typeOf returns the type, in lower case, that a name stands for: one with a dot for itself, whether there is such a kind or not, and an alias
// that is unknown for none.
func (n *names) typeOf(ctx context.Context, name string) (string, error) {
	if strings.Contains(name, ".") {
		return strings.ToLower(name), nil
	}
	k, err := n.lookup(ctx, name)
	if errors.Is(err, kinds.ErrUnknown) {
		err = nil
	}
	return strings.ToLower(k.typ), err
}

func (n *names) list(ctx context.Context) error {
	if n.listed {
		return nil
	}
	stream, err := n.client.List(ctx, &resourcepb.ListRequest{Namespace: namespaceMeta, Type: kindDefinition})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			n.listed = true
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := n.add(response.Resource, response.Resource.Metadata.Id); err != nil {
			return err
		}
	}
}

func (n *names) add(r *resourcepb.Resource, id string) (kind, error) {
	definition := &metapb.ResourceDefinitionSpec{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), definition); err != nil {
		return kind{}, err
	}
	k := kind{definition.ResourceType, definition.DefaultNamespace}
	n.known[id], n.display[id] = k, definition.DisplayType
	for _, name := range kinds.Names(definition) { // people leave all_aliases out
		n.known[name] = k
	}
	return k, nil
}
