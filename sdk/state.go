package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// State is what a controller sees of the node: its inputs and its own outputs. Its methods may be called by several goroutines.
type State struct {
	plugin  string
	client  resourcepb.StateClient
	caches  map[string]*cache // of the controller's inputs and outputs
	ring    func(typ string, c change)
	inputs  []string
	outputs []string
}

// List returns the resources of an input, or the plugin's own of an output, in the order of their ids. It panics when typ is
// neither, or events, or when T is not its message: the plugin is then wrong whatever the node holds.
func List[T proto.Message](s *State, typ string) []Resource[T] {
	var all []Resource[T]
	for _, e := range s.cache(typ).kept().list() {
		if s.sees(typ, e) {
			all = append(all, typed[T](e))
		}
	}
	return all
}

// Get returns one resource of what List lists.
func Get[T proto.Message](s *State, typ, id string) (Resource[T], bool) {
	e, ok := s.cache(typ).kept().get(id)
	if !ok || !s.sees(typ, e) {
		return Resource[T]{}, false
	}
	return typed[T](e), true
}

// Fetch returns what List will, once the watch has caught up: it asks the runtime. Kinds are watched one by one, so that of two writes to two
// kinds List may show the later one first; a controller that must not act on the one without the other looks here before it does.
func Fetch[T proto.Message](ctx context.Context, s *State, typ string) ([]Resource[T], error) {
	all, err := fetch[T](ctx, s, s.cache(typ))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", typ, err)
	}
	return all, nil
}

func fetch[T proto.Message](ctx context.Context, s *State, c *cache) ([]Resource[T], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.List(ctx, &resourcepb.ListRequest{Namespace: c.namespace, Type: c.typ})
	if err != nil {
		return nil, err
	}
	var all []Resource[T]
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		spec, err := c.decode(response.GetResource().GetSpec().GetProtoSpec())
		if err != nil {
			return nil, err
		}
		if e := (entry{response.GetResource(), spec}); s.sees(c.typ, e) {
			all = append(all, typed[T](e))
		}
	}
}

func typed[T proto.Message](e entry) Resource[T] {
	// The metadata is the caller's own: AddFinalizer and RemoveFinalizer bring it up to date.
	return Resource[T]{proto.CloneOf(e.resource.GetMetadata()), e.spec.(T)}
}

// sees reports whether e is the controller's to read: all of an input, its own of an output.
func (s *State) sees(typ string, e entry) bool {
	return slices.Contains(s.inputs, typ) || e.resource.GetMetadata().GetOwner() == s.plugin
}

func (s *State) cache(typ string) *cache {
	c, ok := s.caches[typ]
	if !ok {
		panic(fmt.Sprintf("sdk: %s is neither an input nor an output of the controller", typ))
	}
	return c
}

// synced reports whether everything the controller sees is in memory.
func (s *State) synced() bool {
	for _, c := range s.caches {
		if !c.isSynced() {
			return false
		}
	}
	return true
}

// wrote wakes the controllers that read what a write of our own has changed: its event will be no news to the cache.
func (s *State) wrote(c *cache, seen change) {
	if seen != unchanged {
		s.ring(c.typ, content)
	}
}

// Client is the connection itself, for what the other methods do not cover.
func (s *State) Client() resourcepb.StateClient { return s.client }

// AddFinalizer puts the plugin's name on a resource of an input, so that it stays until RemoveFinalizer. Twice is harmless.
// On success m has the finalizer, and the version with it unless somebody else wrote meanwhile.
// A resource that is being torn down takes no finalizer: that, and a resource that is gone, is an error.
func (s *State) AddFinalizer(ctx context.Context, m *resourcepb.Metadata) error {
	return s.finalizer(ctx, m, "add", func(names []string) []string {
		if slices.Contains(names, s.plugin) {
			return names
		}
		return append(slices.Clone(names), s.plugin)
	})
}

// RemoveFinalizer takes the plugin's name off. Twice is harmless, and so is a resource that is gone.
func (s *State) RemoveFinalizer(ctx context.Context, m *resourcepb.Metadata) error {
	err := s.finalizer(ctx, m, "remove", func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == s.plugin })
	})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// finalizer changes the finalizers of the resource that m names, as often as somebody else is faster.
func (s *State) finalizer(ctx context.Context, m *resourcepb.Metadata, verb string, change func([]string) []string) error {
	c := s.cache(m.GetType())
	e, ok := c.get(m.GetId())
	resource := e.resource
	var err error
	for try := 0; ; try++ {
		if !ok {
			resource, err = s.get(ctx, m.GetNamespace(), m.GetType(), m.GetId())
			if err != nil {
				break
			}
		}
		names := change(resource.GetMetadata().GetFinalizers())
		if slices.Equal(names, resource.GetMetadata().GetFinalizers()) {
			m.Finalizers = names
			return nil
		}
		unchanged := resource.GetMetadata().GetVersion() == m.GetVersion()
		resource, err = s.update(ctx, resource, func(r *resourcepb.Resource) { r.Metadata.Finalizers = names })
		if err == nil {
			s.wrote(c, c.updated(resource))
			m.Finalizers = names
			if unchanged {
				m.Version, m.Updated = resource.GetMetadata().GetVersion(), resource.GetMetadata().GetUpdated()
			}
			return nil
		}
		// When the content has changed meanwhile, the runtime takes us for the one who changes it.
		behind := status.Code(err) == codes.FailedPrecondition || status.Code(err) == codes.PermissionDenied && try == 0
		if !behind || try == tries {
			break
		}
		ok = false
	}
	return fmt.Errorf("%s finalizer of %s %q: %w", verb, m.GetType(), m.GetId(), err)
}

// tries is how often a write is repeated when somebody else wrote between the read and the write.
const tries = 5

func (s *State) get(ctx context.Context, namespace, typ, id string) (*resourcepb.Resource, error) {
	response, err := s.client.Get(ctx, &resourcepb.GetRequest{Namespace: namespace, Type: typ, Id: id})
	return response.GetResource(), err
}

// update writes a changed copy of r, with the owner that r has.
func (s *State) update(ctx context.Context, r *resourcepb.Resource, change func(*resourcepb.Resource)) (*resourcepb.Resource, error) {
	r = proto.CloneOf(r)
	change(r)
	response, err := s.client.Update(ctx, &resourcepb.UpdateRequest{
		NewResource: r,
		Options:     &resourcepb.UpdateOptions{Owner: r.GetMetadata().GetOwner()},
	})
	if err != nil {
		return nil, err
	}
	if response.GetResource() == nil {
		return nil, errors.New("the runtime answered without the resource")
	}
	return response.GetResource(), nil
}
