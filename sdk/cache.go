package sdk

import (
	"fmt"
	"log"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// cache holds the resources of one kind.
type cache struct {
	kind
	events bool // it holds none

	mu       sync.Mutex // guards the fields below
	synced   bool
	bookmark []byte
	items    map[string]entry
	// staged collects contents until BOOTSTRAPPED; they then take the place of items at once.
	staged map[string]entry
}

// entry is a resource and its decoded content.
type entry struct {
	resource *resourcepb.Resource
	spec     proto.Message
}

func newCache(k kind, events bool) *cache {
	return &cache{kind: k, events: events, items: map[string]entry{}}
}

// kept is c unless it holds nothing because its kind are events.
func (c *cache) kept() *cache {
	if c.events {
		panic(fmt.Sprintf("sdk: %s are events, which are not kept: Fetch them", c.typ))
	}
	return c
}

// forget empties the cache: the store that it mirrored is gone.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced, c.bookmark, c.items, c.staged = false, nil, map[string]entry{}, nil
}

// unsync says that the contents may be behind until the next watch is established.
func (c *cache) unsync() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = false
}

// start begins a watch: it returns the position to go on from, or nil after which the whole contents are expected.
func (c *cache) start() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.staged = nil
	if c.bookmark == nil {
		c.staged = map[string]entry{}
	}
	return c.bookmark
}

// expired drops the bookmark. It reports whether there was one.
func (c *cache) expired() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.bookmark != nil
	c.bookmark = nil
	return had
}

// established says that the watch runs. It reports whether the contents are already known and only changes will come.
func (c *cache) established() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = c.synced || c.staged == nil
	return c.staged == nil
}

// change is what an event means to a controller.
type change int

const (
	unchanged change = 0
	// content: who reads the kind must look.
	content change = 1
	// life: phase or finalizers changed, or it is gone; who writes the kind must look too.
	life change = 2
)

// apply takes an event in.
func (c *cache) apply(event *resourcepb.Event) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := event.GetBookmark(); len(b) > 0 {
		c.bookmark = b
	}
	switch event.GetEventType() {
	case resourcepb.EventType_CREATED, resourcepb.EventType_UPDATED:
		return c.put(event.GetResource())
	case resourcepb.EventType_DESTROYED:
		return c.remove(event.GetResource().GetMetadata())
	case resourcepb.EventType_BOOTSTRAPPED:
		if c.staged != nil {
			c.items, c.staged, c.synced = c.staged, nil, true
			return life
		}
	}
	return unchanged
}

// contents are the entries that events speak of. mu is held.
func (c *cache) contents() map[string]entry {
	if c.staged != nil {
		return c.staged
	}
	return c.items
}

// put stores r unless it is older than what is there. mu is held.
func (c *cache) put(r *resourcepb.Resource) change {
	if c.events {
		return unchanged
	}
	m := r.GetMetadata()
	old, ok := c.contents()[m.GetId()]
	before := old.resource.GetMetadata()
	if ok && !newer(before, m) {
		return unchanged
	}
	spec, err := c.decode(r.GetSpec().GetProtoSpec())
	if err != nil {
		// The runtime has checked it against the same schema: a plugin of another version than its definitions.
		log.Printf("%s %q is left out: %v", c.typ, m.GetId(), err)
		return c.remove(m)
	}
	if r.GetSpec().GetYamlSpec() != "" {
		r.Spec.YamlSpec = "" // the same once more: a thousand events of a generator would take a quarter of a megabyte
	}
	c.contents()[m.GetId()] = entry{r, spec}
	if ok && (before.GetPhase() != m.GetPhase() || !slices.Equal(before.GetFinalizers(), m.GetFinalizers())) {
		return life
	}
	return content
}

// remove drops a resource. mu is held.
func (c *cache) remove(m *resourcepb.Metadata) change {
	if _, ok := c.contents()[m.GetId()]; !ok {
		return unchanged
	}
	delete(c.contents(), m.GetId())
	return life
}

// updated takes in what an update of our own returned, so that the next Reconcile sees it even when the watch is behind.
func (c *cache) updated(r *resourcepb.Resource) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Without an entry, or with one of another life, the watch was ahead: what was updated is gone, and would stay here for ever.
	e, ok := c.items[r.GetMetadata().GetId()]
	if !ok || !sameLife(e.resource.GetMetadata(), r.GetMetadata()) || c.staged != nil {
		return unchanged
	}
	return c.put(r)
}

// created takes in what a create of our own returned.
func (c *cache) created(r *resourcepb.Resource) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.staged != nil {
		return unchanged
	}
	return c.put(r)
}

// destroyed takes in that a write of our own destroyed id.
func (c *cache) destroyed(id string) change {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.staged != nil {
		return unchanged
	}
	return c.remove(&resourcepb.Metadata{Id: id})
}

func (c *cache) get(id string) (entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[id]
	return e, ok
}

// list returns all entries in the order of their ids.
func (c *cache) list() []entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]entry, 0, len(c.items))
	for _, e := range c.items {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b entry) int {
		return strings.Compare(a.resource.GetMetadata().GetId(), b.resource.GetMetadata().GetId())
	})
	return all
}

func (c *cache) isSynced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.synced || c.events
}

// newer reports whether b is a later state than a of the resource with one id: a higher version, or another life of it.
func newer(a, b *resourcepb.Metadata) bool {
	if !sameLife(a, b) {
		return true
	}
	va, errA := strconv.ParseUint(a.GetVersion(), 10, 64)
	vb, errB := strconv.ParseUint(b.GetVersion(), 10, 64)
	return errA != nil || errB != nil || vb > va
}

// sameLife reports whether there was no destruction and creation between two states of a resource.
func sameLife(a, b *resourcepb.Metadata) bool { return proto.Equal(a.GetCreated(), b.GetCreated()) }
