// Package observe keeps the resources of some kinds in memory as they change: the runtime's own controllers read from it.
package observe

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
)

// View holds the resources of its kinds. It is behind the state by the time that an event needs.
type View struct {
	state   state.State
	kinds   []state.Kind
	changed func()

	mu        sync.Mutex // guards the fields below
	resources map[state.Kind]map[string]*resourcepb.Resource
	synced    map[state.Kind]bool // the contents of the kind have been seen
}

// New returns a View of kinds, empty until Run. It calls changed after each change, from several goroutines.
func New(s state.State, changed func(), kinds ...state.Kind) *View {
	v := &View{state: s, kinds: kinds, changed: changed, resources: map[state.Kind]map[string]*resourcepb.Resource{}, synced: map[state.Kind]bool{}}
	for _, k := range kinds {
		v.resources[k] = map[string]*resourcepb.Resource{}
	}
	return v
}

// Run follows the kinds until ctx is done or a watch cannot be set up.
func (v *View) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(v.kinds))
	for _, k := range v.kinds {
		go func() { ended <- v.follow(ctx, k) }()
	}
	var first error
	for range v.kinds {
		if err := <-ended; first == nil {
			first = err
			cancel()
		}
	}
	return first
}

// follow starts anew when it has fallen behind: the contents come again then.
func (v *View) follow(ctx context.Context, k state.Kind) error {
	for {
		watch, err := v.state.Watch(ctx, state.WatchRequest{Kind: k, BootstrapContents: true})
		if err != nil {
			return err
		}
		v.reset(k)
		for err == nil {
			var events []*state.Event
			if events, err = watch.Next(ctx); err == nil {
				v.apply(k, events)
			}
		}
		if ctx.Err() != nil || !errors.Is(err, state.ErrSlow) {
			return err
		}
	}
}

func (v *View) reset(k state.Kind) {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.resources[k])
}

func (v *View) apply(k state.Kind, events []*state.Event) {
	v.mu.Lock()
	for _, e := range events {
		id := e.GetResource().GetMetadata().GetId()
		switch e.GetEventType() {
		case resourcepb.EventType_CREATED, resourcepb.EventType_UPDATED:
			v.resources[k][id] = e.GetResource()
		case resourcepb.EventType_DESTROYED:
			delete(v.resources[k], id)
		case resourcepb.EventType_BOOTSTRAPPED:
			v.synced[k] = true
		}
	}
	v.mu.Unlock()
	v.changed()
}

// Synced reports whether the contents of every kind have been seen. Until then an empty kind means nothing.
func (v *View) Synced() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.synced) == len(v.kinds)
}

// Resources returns the resources of k in the order of their ids.
func (v *View) Resources(k state.Kind) []*resourcepb.Resource {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []*resourcepb.Resource
	for _, id := range slices.Sorted(maps.Keys(v.resources[k])) {
		all = append(all, v.resources[k][id])
	}
	return all
}

// Item is a resource with its content.
type Item[T any] struct {
	*resourcepb.Metadata
	Spec *T
}

// Items returns the resources of k with their contents; one that does not parse is left out.
func Items[T any, M interface {
	*T
	proto.Message
}](v *View, k state.Kind) []Item[T] {
	var all []Item[T]
	for _, r := range v.Resources(k) {
		spec := new(T)
		if proto.Unmarshal(r.GetSpec().GetProtoSpec(), M(spec)) == nil {
			all = append(all, Item[T]{r.GetMetadata(), spec})
		}
	}
	return all
}
